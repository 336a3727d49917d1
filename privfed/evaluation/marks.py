"""What was measured of each held-out pair, and figures made of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.data.world import Ragged, spans


@dataclass(frozen=True, eq=False)
class Marks:
    """One number for each held-out pair of a population; infinite if not measured."""

    value: Tensor  # (pairs,) float64
    held: Ragged

    @classmethod
    def none(cls, held: Ragged) -> "Marks":
        return cls(torch.full_like(held.item, torch.inf, dtype=torch.float64), held)

    def put(self, clients: Tensor, value: Tensor) -> None:
        """Write down what was measured of some clients, in place."""
        _, at = spans(self.held.offsets[clients], self.held.counts[clients])
        self.value[at] = value.double()

    def measured(self) -> tuple[Tensor, Tensor, int]:
        """(position, value, clients): measured pairs, by client that has any."""
        seen = self.value < torch.inf
        clients, position = torch.unique(self.held.owner[seen], return_inverse=True)
        return position, self.value[seen], len(clients)


@dataclass(frozen=True, eq=False)
class Score:
    """A figure as a ratio of two sums over clients, or the root of one.

    A mean over clients counts each once; a mean over pairs counts a client's pairs.
    """

    total: Tensor  # (clients,) float64
    count: Tensor  # (clients,)
    root: bool = False

    def __len__(self) -> int:
        return len(self.total)

    def mean(self) -> float:
        """The figure over all clients."""
        value = float(self.total.sum() / self.count.sum())
        return value**0.5 if self.root else value

    @property
    def each(self) -> Tensor:
        """The figure of each client alone, (clients,)."""
        value = self.total / self.count
        return value.sqrt() if self.root else value


def mean_of(values: Tensor) -> Score:
    """A mean over clients; NaN marks a client that does not count."""
    known = values[~values.isnan()].double()
    return Score(known, torch.ones_like(known))


def means(scores: Sequence[tuple[str, Score]]) -> dict[str, float]:
    """Every figure that has a client to speak of, by name."""
    return {name: score.mean() for name, score in scores if len(score)}
