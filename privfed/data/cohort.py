"""The clients of one shard and what lies on their devices."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from privfed.data.world import Ragged, Shape, World

Pairs = tuple[Tensor, Tensor]  # sender, item


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
    features: Mapping[str, Tensor]  # (items, width), public and fixed
    pool: Tensor  # (pool,) items that occur in somebody's training data
    held_out: Pairs

    @property
    def counts(self) -> Tensor:
        """Interactions of each client, (clients,)."""
        return torch.bincount(self.sender, minlength=len(self.clients))


def cohort_of(world: World, clients: Tensor) -> Cohort:
    """Look at some clients of a world through their own devices."""
    sender, item, label = world.train.of(clients)
    held = [part.of(clients)[:2] for part in (world.validation, world.test)]
    return Cohort(
        world.shape,
        clients,
        sender,
        item,
        label,
        world.features,
        world.popularity.nonzero()[:, 0],
        (torch.cat([h[0] for h in held]), torch.cat([h[1] for h in held])),
    )


def ragged(clients: int, owner: Tensor, item: Tensor, label: Tensor) -> Ragged:
    """Lay pairs end to end by client, keeping their order within a client."""
    order = torch.argsort(owner, stable=True)
    counts = torch.bincount(owner, minlength=clients)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Ragged(offsets, item[order], label[order])


def part_of(cohort: Cohort, positions: Tensor) -> Cohort:
    """Some of a cohort's clients, by ascending position."""
    place = torch.full((len(cohort.clients),), -1)
    place[positions] = torch.arange(len(positions))
    at = _span(cohort.counts, positions)
    held = place[cohort.held_out[0]]
    mine = held >= 0
    return replace(
        cohort,
        clients=cohort.clients[positions],
        sender=place[cohort.sender[at]],
        item=cohort.item[at],
        label=cohort.label[at],
        held_out=(held[mine], cohort.held_out[1][mine]),
    )


def _span(counts: Tensor, positions: Tensor) -> Tensor:
    """Indices of the pairs of some clients, where pairs are laid end to end."""
    starts = (counts.cumsum(0) - counts)[positions]
    mine = counts[positions]
    sender = torch.repeat_interleave(torch.arange(len(positions)), mine)
    within = torch.arange(len(sender)) - (mine.cumsum(0) - mine)[sender]
    return starts[sender] + within
