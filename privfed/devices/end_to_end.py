"""A shard's samples laid end to end, with no padding.

For training that takes no product of matrices: every step is then an operation on
single rows, or a sum over a client's own rows one after the other, and a client's
numbers are the same whoever shares its shard.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from privfed.data.cohort import Cohort
from privfed.devices.batches import aligned
from privfed.devices.negatives import Negatives, draw
from privfed.seeds import Stream


@dataclass(frozen=True, eq=False)
class Flat:
    """The rows that each client of a shard touches, and where its samples find them.

    ``item`` ascends within a client. ``place`` points every sample at its row, the
    positive first.
    """

    sender: Tensor  # (rows,) position in the shard, ascending
    item: Tensor  # (rows,)
    ends: Tensor  # (clients + 1,) where each client's rows begin, and the end
    place: Tensor  # (positives, 1 + negatives)

    def uses(self, place: Tensor) -> Tensor:
        """How many of these samples use each row, (rows,)."""
        return torch.bincount(place.reshape(-1), minlength=len(self.item)).float()

    def combined(self, weight: Tensor, table: Tensor) -> Tensor:
        """Each client's weighted sum of its rows of an item table, (clients, width)."""
        return embedding_bag(
            self.item,
            table,
            self.ends,
            mode="sum",
            per_sample_weights=weight,
            include_last_offset=True,
        )

    def summed(self, value: Tensor) -> Tensor:
        """Each client's sum of its rows' numbers, (clients,)."""
        out = value.new_zeros(len(self.ends) - 1)
        return out.index_add_(0, self.sender, value)

    def padded(self) -> tuple[Tensor, Tensor]:
        """Where each row lies in a padded table: (client, place)."""
        return self.sender, torch.arange(len(self.item)) - self.ends[self.sender]


def lay(cohort: Cohort, negatives: Negatives, stream: Stream) -> Flat:
    """Draw a shard's negatives and lay its samples end to end."""
    clients, items, counts = len(cohort.clients), cohort.shape.items, cohort.counts
    within = torch.arange(len(cohort.item)) - (counts.cumsum(0) - counts)[cohort.sender]
    drawn = draw(cohort, within, negatives, stream)
    key = torch.cat([cohort.item[:, None], drawn], 1) + cohort.sender[:, None] * items
    touched = torch.zeros(clients * items, dtype=torch.bool)
    touched[key.view(-1)] = True
    pairs = touched.nonzero()[:, 0]  # ascending by client, then item
    place = torch.empty(clients * items, dtype=torch.int64)
    place[pairs] = torch.arange(len(pairs))
    sender = pairs // items
    ends = pad(torch.bincount(sender, minlength=clients).cumsum(0), (1, 0))
    return Flat(sender, pairs % items, ends, place[key])


def flat_aligned(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply an elementwise function to samples laid end to end; see ``aligned``."""
    return aligned(function, x.reshape(1, -1)).view(x.shape)
