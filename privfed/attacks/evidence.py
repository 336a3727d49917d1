"""What is kept of each (client, item): how often it came, and how strongly.

Everything is a count or a sum of whole numbers, so that no order of views, shards or
rounds changes a bit of it.
"""

import torch
from torch import Tensor

from privfed.interfaces import State

_UNIT = 2.0**24  # of a strength, in a sum of integers
_MOST = 2.0**14  # that one upload can add


def empty(clients: int, items: int, outcomes: int) -> State:
    """Nothing seen yet.

    ``uploads`` counts those of each client, ``counts`` how often an item came with
    each outcome, ``strength`` adds up how far an item stood out.
    """
    return {
        "uploads": torch.zeros(clients, dtype=torch.int64),
        "counts": torch.zeros(outcomes, clients, items, dtype=torch.int16),
        "strength": torch.zeros(clients, items, dtype=torch.int64),
    }


def add(memory: State, clients: Tensor, item: Tensor, outcome: Tensor) -> None:
    """Count one outcome for each (client, item), in place; no pair comes twice."""
    memory["counts"][outcome, clients, item] += 1


def add_strength(memory: State, clients: Tensor, item: Tensor, value: Tensor) -> None:
    """Add to how far items stand out, in place; no pair comes twice."""
    whole = (value.double().clamp(-_MOST, _MOST) * _UNIT).round().long()
    memory["strength"][clients, item] += whole


def strength(memory: State, clients: Tensor) -> Tensor:
    """The sums of some clients, (clients, items) float64."""
    return memory["strength"][clients].double() / _UNIT


def seen(memory: State) -> Tensor:
    """Clients that sent anything, ascending."""
    return memory["uploads"].nonzero()[:, 0]
