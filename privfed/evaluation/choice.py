"""Ranks of the items that were chosen, among a client's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.data.cohort import Cohort
from privfed.data.world import Ragged, World
from privfed.evaluation.marks import Marks, Score
from privfed.evaluation.task import Task, split, whole
from privfed.interfaces import Chooser, State
from privfed.messages import Rows
from privfed.metrics.utility import sampled_ranks
from privfed.references import most_frequent

_AT = (1, 4)  # as FedMeta reports


@dataclass(frozen=True, eq=False)
class Choice(Task):
    """Held-out choices predicted: the share whose item is ranked K or better."""

    world: World
    method: Chooser

    select = "accuracy@1"
    higher = True

    def describe(self) -> str:
        clients = int((self.world.test.counts > 0).sum())
        return (
            f"{len(self.world.test.item):,} held-out choices of {clients:,} clients "
            "that never trained"
        )

    def measure(
        self,
        model: State,
        private: State,
        cohort: Cohort,
        local: Mapping[str, Rows] | None = None,
    ) -> tuple[Tensor, Tensor]:
        return (
            self._ranks(model, private, cohort, self.world.validation),
            self._ranks(model, private, cohort, self.world.test),
        )

    def _ranks(
        self, model: State, private: State, cohort: Cohort, held: Ragged
    ) -> Tensor:
        pairs = held.of(cohort.clients)
        if not len(pairs.item):
            return torch.zeros(0)
        scores = self.method.choose(model, private, cohort, pairs)
        return ranks(scores, pairs.item)

    def scores(self, marks: Marks) -> Mapping[str, Score]:
        position, rank, clients = marks.measured()
        none = torch.zeros(clients, dtype=torch.float64)
        count = torch.bincount(position, minlength=clients)
        return {
            f"accuracy@{k}": Score(none.index_add(0, position, hit.double()), count)
            for k in _AT
            for hit in [rank <= k]
        }

    def references(self) -> Mapping[str, Marks]:
        test = self.world.test
        counts = most_frequent(self.world)
        return {"most frequent": whole(test, ranks(counts[test.owner], test.item))}

    def chunks(self) -> Sequence[Tensor]:
        largest = self.world.train.counts.max() + self.world.test.counts.max()
        return split(self.world, self.method, int(largest))


def ranks(scores: Tensor, item: Tensor) -> Tensor:
    """Rank of each pair's item among all, (pairs,); a tie counts against it."""
    own = scores.gather(1, item[:, None])
    others = scores.scatter(1, item[:, None], -torch.inf)
    return sampled_ranks(own[:, 0], others)
