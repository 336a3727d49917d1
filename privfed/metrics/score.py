"""A figure over clients: a ratio of two sums, or the root of one."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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
