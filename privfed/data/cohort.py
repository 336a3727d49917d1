"""The clients of one shard and what lies on their devices."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from privfed.data.world import Pairs, Shape, World, spans


@dataclass(frozen=True, eq=False)
class Cohort:
    """Some clients and their training interactions, laid end to end.

    ``held_out`` is filled only when a published protocol looks at validation and
    test items while sampling negatives; see ``Negatives.exclude``.
    """

    shape: Shape
    clients: Tensor  # (clients,)
    sender: Tensor  # (interactions,) position in clients, ascending
    item: Tensor  # (interactions,)
    label: Tensor  # (interactions,)
    context: Tensor  # (interactions, width)
    features: Mapping[str, Tensor]  # (items, width), public and fixed
    pool: Tensor  # (pool,) items that occur in somebody's training data
    held_out: tuple[Tensor, Tensor]  # sender, item

    @cached_property
    def counts(self) -> Tensor:
        """Interactions of each client, (clients,)."""
        return torch.bincount(self.sender, minlength=len(self.clients))


def cohort_of(world: World, clients: Tensor) -> Cohort:
    """Look at some clients of a world through their own devices."""
    return _cohort(world, clients, world.train.of(clients))


def cohort_of_pairs(world: World, at: Tensor) -> Cohort:
    """Only some training interactions, by ascending place, and their clients."""
    clients, sender = torch.unique(world.train.owner[at], return_inverse=True)
    return _cohort(world, clients, world.train.pairs(sender, at))


def _cohort(world: World, clients: Tensor, own: Pairs) -> Cohort:
    held = [part.of(clients) for part in (world.validation, world.test)]
    return Cohort(
        world.shape,
        clients,
        own.sender,
        own.item,
        own.label,
        own.context,
        world.features,
        world.pool,
        (torch.cat([h.sender for h in held]), torch.cat([h.item for h in held])),
    )


def part_of(cohort: Cohort, positions: Tensor) -> Cohort:
    """Some of a cohort's clients, by ascending position."""
    place = torch.full((len(cohort.clients),), -1)
    place[positions] = torch.arange(len(positions))
    counts = cohort.counts
    sender, at = spans((counts.cumsum(0) - counts)[positions], counts[positions])
    held = place[cohort.held_out[0]]
    mine = held >= 0
    return replace(
        cohort,
        clients=cohort.clients[positions],
        sender=sender,
        item=cohort.item.index_select(0, at),
        label=cohort.label.index_select(0, at),
        context=cohort.context.index_select(0, at),
        held_out=(held[mine], cohort.held_out[1][mine]),
    )
