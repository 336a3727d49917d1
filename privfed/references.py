"""Trivial rankers to put beside every result; a method must clear them.

Both are total orders, equal counts by item number: ranks count a tie against the
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
