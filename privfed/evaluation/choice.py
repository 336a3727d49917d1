"""Ranks of the items that were chosen, among a client's own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.data.cohort import Cohort
from privfed.data.world import Pairs, World
from privfed.evaluation.exposure import Exposure
from privfed.evaluation.marks import Marks
from privfed.evaluation.task import PairTask, by_pairs, split, whole
from privfed.interfaces import Chooser, State
from privfed.metrics.score import Score
from privfed.metrics.utility import sampled_ranks
from privfed.references import most_frequent

_AT = (1, 4)  # as FedMeta reports


@dataclass(frozen=True, eq=False)
class Choice(PairTask):
    """Held-out choices predicted: the share whose item is ranked K or better."""

    world: World
    method: Chooser
    exposure: Exposure | None = None

    select = "accuracy@1"
    higher = True

    def describe(self) -> str:
        clients = int((self.world.test.counts > 0).sum())
        return (
            f"{len(self.world.test.item):,} held-out choices of {clients:,} clients "
            "that never trained"
        )

    def marks(
        self, model: State, private: State, cohort: Cohort, pairs: Pairs
    ) -> Tensor:
        if not len(pairs.item):
            return torch.zeros(0)
        scores = self.method.choose(model, private, cohort, pairs)
        return ranks(scores, pairs.item)

    def scores(self, marks: Marks) -> Mapping[str, Score]:
        return {f"accuracy@{k}": by_pairs(marks, _within(k)) for k in _AT}

    def references(self) -> Mapping[str, Marks]:
        test = self.world.test
        counts = most_frequent(self.world)
        return {"most frequent": whole(test, ranks(counts[test.owner], test.item))}

    def chunks(self) -> Sequence[Tensor]:
        largest = self.world.train.counts.max() + self.world.test.counts.max()
        return split(self, self.method, int(largest))


def _within(k: int) -> Callable[[Tensor], Tensor]:
    return lambda rank: rank <= k


def ranks(scores: Tensor, item: Tensor) -> Tensor:
    """Rank of each pair's item among all, (pairs,); a tie counts against it."""
    own = scores.gather(1, item[:, None])
    others = scores.scatter(1, item[:, None], -torch.inf)
    return sampled_ranks(own[:, 0], others)
