"""The clients of one shard and what lies on their devices."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from privfed.data.world import Shape, World, spans

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
        item=cohort.item[at],
        label=cohort.label[at],
        held_out=(held[mine], cohort.held_out[1][mine]),
    )
