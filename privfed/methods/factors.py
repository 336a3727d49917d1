"""What methods with a private vector for each user and shared item rows have in common.

A shard's interactions lie padded by client, so that a client's products are taken by
itself: no matrix product mixes clients.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.data.cohort import Cohort
from privfed.data.world import Pairs
from privfed.devices.batches import bucket
from privfed.interfaces import State
from privfed.messages import Rows, summed
from privfed.seeds import Stream

ITEMS, USERS = "items", "users"


@dataclass(frozen=True, eq=False)
class Padded:
    """A shard's interactions by client, padded to the size of its bucket."""

    item: Tensor  # (clients, size), 0 where padded
    label: Tensor  # (clients, size), 0 where padded
    real: Tensor  # (clients, size) bool: not padding

    @property
    def count(self) -> Tensor:
        """Interactions of each client, at least 1: (clients, 1)."""
        return self.real.sum(1, keepdim=True).clamp_min(1)

    def rows(self, value: Tensor, items: int) -> Rows:
        """Sum (clients, size, width) by client and item; padding is left out."""
        sender, _ = at = self.real.nonzero(as_tuple=True)
        return summed(sender, self.item[at], value[at], items)


def by_client(cohort: Cohort) -> Padded:
    """Lay out a shard's own interactions, each client's in their order."""
    return _padded(cohort, cohort.sender, cohort.item, cohort.label)


def distinct(cohort: Cohort) -> Padded:
    """The same with each item of a client once; labels of repeats add up."""
    value = cohort.label.float()[:, None]
    rows = summed(cohort.sender, cohort.item, value, cohort.shape.items)
    return _padded(cohort, rows.sender, rows.item, rows.value[:, 0])


def _padded(cohort: Cohort, sender: Tensor, item: Tensor, label: Tensor) -> Padded:
    counts = torch.bincount(sender, minlength=len(cohort.clients))
    at = sender, torch.arange(len(item)) - (counts.cumsum(0) - counts)[sender]
    size = (len(counts), int(bucket(cohort.counts).max()))
    items, labels = torch.zeros(size, dtype=torch.int64), torch.zeros(size)
    real = torch.zeros(size, dtype=torch.bool)
    items[at], labels[at], real[at] = item, label.float(), True
    return Padded(items, labels, real)


def beside(first: Padded, second: Padded) -> Padded:
    """The interactions of both, those of ``second`` after those of ``first``."""
    return Padded(
        torch.cat([first.item, second.item], 1),
        torch.cat([first.label, second.label], 1),
        torch.cat([first.real, second.real], 1),
    )


def inner(x: Tensor, table: Tensor) -> Tensor:
    """Each client's vector times its own rows: (clients, size).

    ``x`` is (clients, width), ``table`` (clients, size, width).
    """
    return torch.bmm(x[:, None], table.transpose(1, 2))[:, 0]


def combined(weight: Tensor, table: Tensor) -> Tensor:
    """Each client's weighted sum of its own rows: (clients, width)."""
    return torch.bmm(weight[:, None], table)[:, 0]


def scores(model: State, x: Tensor) -> Tensor:
    """Inner products of user vectors with all item rows, (clients, items)."""
    return x @ model[ITEMS].T


def products(model: State, private: State, cohort: Cohort, pairs: Pairs) -> Tensor:
    """Inner product of user vector and item row of each pair, (pairs,)."""
    x = private[USERS][cohort.clients[pairs.sender]]
    return (x * model[ITEMS][pairs.item]).sum(1)


def normal_users(clients: int, width: int, stream: Stream) -> Tensor:
    """Standard normal vectors, each from its own device: (clients, width)."""
    out = torch.empty(clients, width)
    stream.of(USERS).normal(torch.arange(clients), list(out))
    return out


def normal_items(items: int, width: int, stream: Stream) -> Tensor:
    """A standard normal table, drawn on the CPU so that a device changes no draw."""
    drawn = torch.randn(items, width, generator=stream.generator(), device="cpu")
    return drawn.to(torch.get_default_device())


def uniform(rows: int, width: int, stream: Stream) -> Tensor:
    """A table of draws from [-1/2, 1/2), each row from its own lane."""
    drawn = stream.uniform(torch.arange(rows)[:, None], torch.arange(width)[None])
    return (drawn - 0.5).float()
