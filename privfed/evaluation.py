"""How well clients are served: ranks of held-out items, on the clients' own scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from privfed.data.cohort import Cohort
from privfed.data.world import Ragged, World, spans
from privfed.interfaces import Method
from privfed.metrics.utility import (
    draw_candidates,
    full_ranks,
    hit_rate,
    ndcg,
    sampled_ranks,
)
from privfed.seeds import Seeds

_SCORED = 512  # clients scored at a time, at most
_SCORING_BYTES = 2**28


@dataclass(frozen=True)
class Protocol:
    """Ranking against ``negatives`` sampled items (99 or 100), or all where "full".

    ``at`` are the cut-offs K; the first is the one that runs are selected by.
    """

    ranking: Literal["sampled", "full"] = "sampled"
    negatives: int = 99
    at: tuple[int, ...] = (10, 5, 20)
    every: int = 5

    def __post_init__(self) -> None:
        if not self.at or min(self.at) < 1:
            raise ValueError(f"at needs cut-offs of 1 or more, got {self.at}")
        for name in ("negatives", "every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")

    def describe(self, world: World) -> str:
        """The words that a table puts beside its figures."""
        if self.ranking == "full":
            return "full ranking"
        if world.candidates is not None:
            return f"{world.candidates.shape[1]} given negatives"
        return f"{self.negatives} sampled negatives"

    def candidates(self, world: World, seeds: Seeds) -> Tensor | None:
        """Negatives of each client, (clients, negatives), or None for all items."""
        if self.ranking == "full":
            return None
        if world.candidates is not None:
            return world.candidates
        return draw_candidates(world, self.negatives, seeds("candidates"))


def ranks(
    scores: Tensor, cohort: Cohort, held: Ragged, candidates: Tensor | None
) -> Tensor:
    """Rank of every held-out pair of a cohort, (pairs,), 1 is best.

    ``scores`` is (clients, items); one row may be expanded to all clients. Raises
    ArithmeticError where a score is NaN.
    """
    pairs = held.of(cohort.clients)[:2]
    if candidates is None:
        return full_ranks(scores, (cohort.sender, cohort.item), pairs)
    drawn = candidates[cohort.clients]
    others = scores.gather(1, drawn)[pairs[0]]
    # a published list may hold the held-out item itself: it cannot beat itself
    itself = drawn[pairs[0]] == pairs[1][:, None]
    others = others.masked_fill(itself, -torch.inf)
    return sampled_ranks(scores[pairs], others)


@dataclass(frozen=True, eq=False)
class Ranks:
    """Ranks of a whole population's held-out pairs; 0 where not measured."""

    rank: Tensor  # (pairs,)
    held: Ragged

    @classmethod
    def none(cls, held: Ragged) -> "Ranks":
        return cls(torch.zeros(len(held.item), dtype=torch.int64), held)

    def put(self, clients: Tensor, rank: Tensor) -> None:
        """Write the ranks of some clients, in place."""
        _, at = spans(self.held.offsets[clients], self.held.counts[clients])
        self.rank[at] = rank

    def per_client(self, at: Sequence[int]) -> Mapping[str, Tensor]:
        """HR@K and NDCG@K of every client that was measured."""
        seen = self.rank > 0
        owner = self.held.owner[seen]
        clients, position = torch.unique(owner, return_inverse=True)
        rank = self.rank[seen]
        scores: dict[str, Tensor] = {}
        for k in at:
            scores[f"hr@{k}"] = hit_rate(rank, position, len(clients), k)
            scores[f"ndcg@{k}"] = ndcg(rank, position, len(clients), k)
        return scores

    def means(self, at: Sequence[int]) -> dict[str, float]:
        """HR@K and NDCG@K, means over the clients that were measured."""
        each = self.per_client(at)
        return {n: float(v.double().mean()) for n, v in each.items() if len(v)}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A protocol made ready for one world."""

    world: World
    candidates: Tensor | None

    def ranks(self, scores: Tensor, cohort: Cohort) -> tuple[Tensor, Tensor]:
        """Ranks of a cohort's validation and test pairs."""
        validation = ranks(scores, cohort, self.world.validation, self.candidates)
        return validation, ranks(scores, cohort, self.world.test, self.candidates)

    def chunks(self, method: Method) -> Sequence[Tensor]:
        """Clients with held-out items, as many at once as fit in little memory.

        The size follows from method and world alone: no result depends on memory.
        """
        shape = self.world.shape
        size = _SCORING_BYTES // method.footprint(shape, shape.items)
        held = self.world.validation.counts + self.world.test.counts
        return torch.split(held.nonzero()[:, 0], max(1, min(_SCORED, size)))
