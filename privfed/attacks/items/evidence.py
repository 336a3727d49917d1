"""What is kept of each (client, item): how often it came, and how strongly.

Everything is a count or a sum of whole numbers, so that no order of shards or uploads
changes a bit of it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.interfaces import State

_UNIT = 2.0**24  # of a strength, in a sum of integers
_MOST = 2.0**14  # that one upload can add
LEVELS = (1.0, 3.0)  # strengths that part faint rows from clear ones from loud ones
OUTCOMES = 2 * (len(LEVELS) + 1)  # minus and plus of each level


def empty(clients: int, items: int, outcomes: int) -> dict[str, Tensor]:
    """Nothing seen yet.

    ``uploads`` counts those of each client, ``counts`` how often an item came with
    each outcome, ``strength`` adds up how far an item stood out; ``every row`` marks
    clients that sent all items.
    """
    return {
        "uploads": torch.zeros(clients, dtype=torch.int64),
        "counts": torch.zeros(outcomes, clients, items, dtype=torch.int16),
        "strength": torch.zeros(clients, items, dtype=torch.int64),
        "every row": torch.zeros(clients, dtype=torch.bool),
    }


def seen(memory: State) -> Tensor:
    """Clients that sent anything, ascending."""
    return memory["uploads"].nonzero()[:, 0]


def strength(memory: State, clients: Tensor) -> Tensor:
    """How far items stood out in all uploads, (clients, items) float64."""
    return memory["strength"][clients].double() / _UNIT


@dataclass(frozen=True, eq=False)
class Reading:
    """What a shard's uploads of one round tell."""

    came: Tensor  # (clients, items) bool
    strength: Tensor  # (clients, items) in deviations, positives above zero
    every: Tensor  # (clients,) bool: whether every row was sent
    explained: Tensor  # (clients,) share of the rows' energy along the axis

    @classmethod
    def nothing(cls, clients: int, items: int) -> "Reading":
        none = torch.zeros(clients, items)
        every = torch.zeros(clients, dtype=torch.bool)
        return cls(none.bool(), none, every, torch.full((clients,), -1.0))

    def or_better(self, other: "Reading") -> "Reading":
        """For each client the reading that is nearer to rank one."""
        take = other.explained > self.explained
        return Reading(
            torch.where(take[:, None], other.came, self.came),
            torch.where(take[:, None], other.strength, self.strength),
            torch.where(take, other.every, self.every),
            torch.maximum(other.explained, self.explained),
        )


def take(memory: State, clients: Tensor, reading: Reading, once: bool) -> None:
    """Count a reading, in place; of a client seen before only unless ``once``."""
    new = (memory["uploads"][clients] == 0) | (not once)
    at = (reading.came & new[:, None]).nonzero(as_tuple=True)
    pair, told = (clients[at[0]], at[1]), reading.strength[at]
    memory["counts"][_outcome(told), *pair] += 1
    whole = (told.double().clamp(-_MOST, _MOST) * _UNIT).round().long()
    memory["strength"][pair] += whole
    memory["uploads"][clients[new]] += 1
    memory["every row"][clients[new]] |= reading.every[new]


def count(memory: State, clients: Tensor, came: Tensor, once: bool) -> None:
    """Count what came, (clients, items) bool, in place; see ``take``."""
    new = (memory["uploads"][clients] == 0) | (not once)
    memory["counts"][0, clients] += (came & new[:, None]).to(torch.int16)
    memory["uploads"][clients[new]] += 1


def _outcome(told: Tensor) -> Tensor:
    """The number of an outcome: odd where positive, larger where louder."""
    level = sum((told.abs() > bound).long() for bound in LEVELS)
    return 2 * level + (told > 0).long()
