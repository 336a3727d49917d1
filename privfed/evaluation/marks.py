"""What was measured of each held-out pair."""

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
