"""Negative sampling on the device.

What a protocol excludes matters more than the model: a device that never draws
its held-out items as negatives tells its model which they are. ``train_only`` is
the default; ``all_interactions`` exists to reproduce published numbers.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from privfed.data.cohort import Cohort
from privfed.errors import SettingsError
from privfed.seeds import Stream

_TRIES = 64  # rejection sampling gives up long after any usable client is served


@dataclass(frozen=True)
class Negatives:
    """How each positive gets its sampled negatives.

    ``exclude`` says which items of the client are never drawn; ``nothing`` draws
    from the whole catalog, as a guarantee for single interactions needs, because
    then no draw depends on any other interaction. ``distinct`` makes the
    negatives of one positive differ from one another.
    """

    per_positive: int = 4
    exclude: Literal["train_only", "all_interactions", "nothing"] = "train_only"
    distinct: bool = False
    pool: Literal["all_items", "items_in_train"] = "all_items"

    def __post_init__(self) -> None:
        if self.per_positive < 1:
            raise ValueError(
                f"per_positive must be at least 1, got {self.per_positive}"
            )

    def drawn(self, cohort: Cohort, within: Tensor, stream: Stream) -> Tensor:
        """Negatives of each interaction, (interactions, per_positive); see ``draw``."""
        return draw(cohort, within, self, stream)


def excluded(cohort: Cohort, rule: str) -> Tensor:
    """Mark the items that a client may not draw, (clients, items) bool."""
    mask = torch.zeros(len(cohort.clients), cohort.shape.items, dtype=torch.bool)
    if rule != "nothing":
        mask[cohort.sender, cohort.item] = True
    if rule == "all_interactions":
        mask[cohort.held_out] = True
    return mask


def draw(
    cohort: Cohort, within: Tensor, negatives: Negatives, stream: Stream
) -> Tensor:
    """Draw (interactions, per_positive) negative items.

    ``within`` numbers each interaction inside its client, so that a draw depends
    on the client alone and not on who shares its shard.
    """
    k = negatives.per_positive
    pool = cohort.pool if negatives.pool == "items_in_train" else None
    high = cohort.shape.items if pool is None else len(pool)
    mask = excluded(cohort, negatives.exclude)
    needed = k if negatives.distinct else 1
    usable = mask if pool is None else mask[:, pool]
    _refuse_full_clients(usable, needed, cohort.clients)
    client = cohort.clients[cohort.sender][:, None]
    slot = within[:, None] * k + torch.arange(k)

    def attempt(at: tuple[Tensor, Tensor] | Tensor, number: int) -> Tensor:
        row, column = at
        drawn = stream.integers(
            client[row, 0], slot[row, column] * _TRIES + number, high
        )
        return drawn if pool is None else pool[drawn]

    every = torch.ones(len(cohort.item), k, dtype=torch.bool).nonzero().T
    out = attempt(every, 0).view(-1, k)
    unsure = torch.arange(len(out))  # rows drawn from since they were last looked at
    for number in range(1, _TRIES):
        bad = mask[cohort.sender[unsure, None], out[unsure]]
        if negatives.distinct:
            bad |= _repeats(out[unsure])
        row, column = bad.nonzero(as_tuple=True)
        if not len(row):
            return out
        out[unsure[row], column] = attempt((unsure[row], column), number)
        unsure = unsure[bad.any(1)]
    raise SettingsError(
        "negative sampling found too few items: a client has interacted with nearly "
        "the whole catalog; leave such clients out or lower negatives"
    )


def _repeats(drawn: Tensor) -> Tensor:
    """Mark entries equal to an earlier one in their row."""
    same = drawn[:, :, None] == drawn[:, None, :]
    return same.tril(-1).any(2)


def _refuse_full_clients(mask: Tensor, needed: int, clients: Tensor) -> None:
    free = (~mask).sum(1)
    if len(free) and int(free.min()) < needed:
        worst = int(clients[free.argmin()])
        raise SettingsError(
            f"client {worst} has only {int(free.min())} items to draw negatives from "
            f"and needs {needed}; leave it out or lower negatives"
        )
