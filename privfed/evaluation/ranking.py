"""Ranks of held-out items, on the clients' own scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.data.cohort import Cohort, cohort_of
from privfed.data.world import Ragged, World
from privfed.evaluation.exposure import Exposure
from privfed.evaluation.marks import Marks
from privfed.evaluation.protocol import Protocol
from privfed.evaluation.task import SCORED, Task, split
from privfed.interfaces import LocalView, Ranker, State
from privfed.messages import Rows
from privfed.metrics.score import Score, mean_of
from privfed.metrics.utility import full_ranks, hit_rate, ndcg, sampled_ranks
from privfed.references import popularity


def ranks(
    scores: Tensor, cohort: Cohort, held: Ragged, candidates: Tensor | None
) -> Tensor:
    """Rank of every held-out pair of a cohort, (pairs,), 1 is best.

    ``scores`` is (clients, items); one row may be expanded to all clients. Raises
    ArithmeticError where a score is NaN.
    """
    own = held.of(cohort.clients)
    pairs = (own.sender, own.item)
    if candidates is None:
        return full_ranks(scores, (cohort.sender, cohort.item), pairs)
    drawn = candidates[cohort.clients]
    others = scores.gather(1, drawn)[pairs[0]]
    # a published list may hold the held-out item itself: it cannot beat itself
    itself = drawn[pairs[0]] == pairs[1][:, None]
    others = others.masked_fill(itself, -torch.inf)
    return sampled_ranks(scores[pairs], others)


def rank_scores(marks: Marks, at: Sequence[int]) -> Mapping[str, Score]:
    """HR@K and NDCG@K, means over the clients that were measured."""
    position, rank, clients = marks.measured()
    found: dict[str, Score] = {}
    for k in at:
        found[f"hr@{k}"] = mean_of(hit_rate(rank, position, clients, k))
        found[f"ndcg@{k}"] = mean_of(ndcg(rank, position, clients, k))
    return found


def reached(
    world: World, scores: Tensor, candidates: Tensor | None, held: Ragged
) -> Marks:
    """Ranks by scores (clients, items), or by one ranking for all, (1, items)."""
    everyones = scores.expand(world.shape.clients, -1)
    marks = Marks.none(held)
    for clients in torch.split(held.counts.nonzero()[:, 0], SCORED):
        cohort = cohort_of(world, clients)
        marks.put(clients, ranks(everyones[clients], cohort, held, candidates))
    return marks


@dataclass(frozen=True, eq=False)
class Ranking(Task):
    """Held-out items ranked among others: HR@K and NDCG@K."""

    world: World
    method: Ranker
    protocol: Protocol
    candidates: Tensor | None
    exposure: Exposure | None = None

    higher = True

    @property
    def select(self) -> str:  # type: ignore[override]
        return f"ndcg@{self.protocol.at[0]}"

    def describe(self) -> str:
        return self.protocol.describe(self.world)

    def measure(
        self, model: State, private: State, cohort: Cohort
    ) -> Mapping[str, Tensor]:
        return self._ranks(self.method.score(model, private, cohort), cohort)

    def measure_locally(
        self, model: State, private: State, cohort: Cohort, local: Mapping[str, Rows]
    ) -> Mapping[str, Tensor]:
        """The same, where clients predict with the rows that they trained."""
        assert isinstance(self.method, LocalView)
        scores = self.method.score_locally(model, private, cohort, local)
        return self._ranks(scores, cohort)

    def _ranks(self, scores: Tensor, cohort: Cohort) -> Mapping[str, Tensor]:
        held = {"validation": self.world.validation, "test": self.world.test}
        found = {
            name: ranks(scores, cohort, pairs, self.candidates)
            for name, pairs in held.items()
        }
        if self.exposure:
            found |= self.exposure.measure(scores, cohort)
        return found

    def scores(self, marks: Marks) -> Mapping[str, Score]:
        return rank_scores(marks, self.protocol.at)

    def references(self) -> Mapping[str, Marks]:
        order = popularity(self.world)
        floor = reached(self.world, order, self.candidates, self.world.test)
        return {"popularity": floor}

    def chunks(self) -> Sequence[Tensor]:
        return split(self, self.method, self.world.shape.items)
