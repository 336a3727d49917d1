"""What methods with a private vector for each user and shared item rows have in common.

A shard's interactions lie padded by client, so that a client's products are taken by
itself: no matrix product mixes clients.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from privfed.data.cohort import Cohort
from privfed.data.world import Pairs, Shape
from privfed.devices.batches import bucket
from privfed.interfaces import State
from privfed.messages import Rows, Total, summed
from privfed.seeds import Stream

ITEMS, USERS = "items", "users"
Started = tuple[State, State]
_BETAS, _EPS = (0.9, 0.999), 1e-8  # these are PyTorch's


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

    @cached_property
    def _same(self) -> tuple[Tensor, Tensor, int]:
        """(group, first) of every sample, and groups: a client's samples of an item.

        ``first`` is the place of a group's first sample; a padded one is its own.
        """
        clients, size = self.item.shape
        client = torch.arange(clients)[:, None]
        spare = -1 - torch.arange(size)[None]  # no item's number
        item = torch.where(self.real, self.item, spare) + size
        key = client * (int(item.max()) + 1) + item
        _, group = torch.unique(key, return_inverse=True)
        group, count = group.flatten(), int(group.max()) + 1
        place = torch.arange(clients * size)
        first = torch.full((count,), clients * size).scatter_reduce(
            0, group, place, "amin"
        )
        return group, first[group], count

    def shared(self, value: Tensor) -> Tensor:
        """Each sample's (clients, size, width) plus those of the same item's others."""
        group, _, count = self._same
        if count == self.real.numel():
            return value
        flat = value.flatten(0, 1)
        total = flat.new_zeros(count, value.shape[2]).index_add_(0, group, flat)
        return total[group].view_as(value)

    def first(self, value: Tensor) -> Tensor:
        """Zero but at the first of a client's samples of an item."""
        _, first, _ = self._same
        mine = first == torch.arange(len(first))
        return value * mine.view(self.real.shape)[..., None]

    def rows(self, value: Tensor, items: int) -> Rows:
        """Sum (clients, size, width) by client and item; padding is left out."""
        sender, _ = at = self.real.nonzero(as_tuple=True)
        return summed(sender, self.item[at], value[at], items)


@dataclass(frozen=True, eq=False)
class Adam:
    """Adam's memory of some tensor, and its next step; Kingma and Ba, 2015."""

    rate: float
    first: Tensor
    second: Tensor
    taken: int = 0

    @classmethod
    def start(cls, like: Tensor, rate: float) -> "Adam":
        """No step taken yet."""
        return cls(rate, torch.zeros_like(like), torch.zeros_like(like))

    def step(self, slope: Tensor) -> tuple["Adam", Tensor]:
        """(memory after, move) of a step on a gradient."""
        taken = self.taken + 1
        first = self.first * _BETAS[0] + slope * (1 - _BETAS[0])
        second = self.second * _BETAS[1] + slope.square() * (1 - _BETAS[1])
        size = (second / (1 - _BETAS[1] ** taken)).sqrt() + _EPS
        move = first / (1 - _BETAS[0] ** taken) / size * -self.rate
        return replace(self, first=first, second=second, taken=taken), move


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


def small_start(shape: Shape, width: int, size: float, stream: Stream) -> Started:
    """First (model, private): normal vectors and rows of deviation ``size``."""
    users = normal_users(shape.clients, width, stream) * size
    return {ITEMS: normal_items(shape.items, width, stream) * size}, {USERS: users}


def moved(model: State, total: Total) -> State:
    """The model with the sum of all changes of item rows added."""
    if ITEMS not in total.tables:
        return model
    return {**model, ITEMS: model[ITEMS] + total.tables[ITEMS]}


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
