"""Trivial predictors to put beside every result; a method must clear them.

Rankers are total orders, equal counts by item number: ranks count a tie against the
held-out item, and few training interactions mean many equal counts.
"""

import torch
from torch import Tensor

from privfed.data.world import World


def popularity(world: World) -> Tensor:
    """One ranking for all clients, by training interactions: (1, items) float64."""
    return _ordered(world.popularity)


def unseen_first(world: World) -> Tensor:
    """Items in nobody's training data first, then by popularity: (1, items) float64.

    On a split by time such items can be most of what is held out. Where this
    ranker does well, a benchmark rewards not touching unseen items.
    """
    counts = world.popularity
    return _ordered(counts.masked_fill(counts == 0, int(counts.max()) + 1))


def _ordered(counts: Tensor) -> Tensor:
    """Counts and, below 1, a share that falls with the item's number."""
    share = torch.arange(len(counts), 0, -1, dtype=torch.float64) / (len(counts) + 1)
    return (counts + share)[None]


def user_means(world: World) -> Tensor:
    """Each client's mean rating, all clients' where it has none: (clients,) float64."""
    return _means(world, world.train.owner, world.shape.clients)


def item_means(world: World) -> Tensor:
    """Each item's mean rating, all items' where it has none: (items,) float64."""
    return _means(world, world.train.item, world.shape.items)


def _means(world: World, key: Tensor, size: int) -> Tensor:
    label = world.train.label.double()
    total = torch.zeros(size, dtype=torch.float64).index_add_(0, key, label)
    count = torch.bincount(key, minlength=size)
    return torch.where(count > 0, total / count.clamp(min=1), label.mean())


def most_frequent(world: World) -> Tensor:
    """How often each client chose each item: (clients, items) float64.

    Among an equal number of choices, the item with the lower number comes first.
    """
    size = (world.shape.clients, world.shape.items)
    key = world.train.owner * size[1] + world.train.item
    counts = torch.bincount(key, minlength=size[0] * size[1]).view(size)
    share = torch.arange(size[1], 0, -1, dtype=torch.float64) / (size[1] + 1)
    return counts + share
