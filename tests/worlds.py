"""Worlds small enough to do by hand, built from their parts alone."""

from collections.abc import Mapping, Sequence

import torch
from torch import Generator, Tensor

from privfed.data.cohort import Cohort, cohort_of
from privfed.data.world import Ragged, Shape, World
from privfed.devices.batches import bucket
from privfed.interfaces import Opening
from privfed.seeds import Seeds

UNEVEN = (3, 0, 9, 17, 1, 5, 12, 30)  # interactions by client; one has none


def lay(lists: Sequence[Sequence[int]]) -> Ragged:
    """Each client's items, end to end."""
    counts = torch.tensor([0] + [len(one) for one in lists])
    item = torch.tensor([i for one in lists for i in one], dtype=torch.int64)
    return Ragged(
        counts.cumsum(0), item, torch.ones(len(item)), torch.zeros(len(item), 0)
    )


def world(
    train: Sequence[Sequence[int]],
    items: int,
    test: Sequence[Sequence[int]] | None = None,
    features: Mapping[str, Tensor] | None = None,
) -> World:
    """A world from each client's training items."""
    features = features or {}
    widths = {name: table.shape[1] for name, table in features.items()}
    nothing: list[list[int]] = [[] for _ in train]
    return World(
        "by hand",
        Shape(len(train), items, widths),
        lay(train),
        lay(nothing),
        lay(test or nothing),
        features=features,
    )


def uneven(counts: Sequence[int] = UNEVEN, items: int = 60, seed: int = 0) -> World:
    """Clients of the given sizes with random items, and two random modalities."""
    rng = Generator().manual_seed(seed)
    train = [torch.randperm(items, generator=rng)[:c].tolist() for c in counts]
    features = {
        "image": torch.randn(items, 8, generator=rng),
        "text": torch.randn(items, 4, generator=rng),
    }
    return world(train, items, features=features)


def checkerboard(clients: int = 8, items: int = 24) -> World:
    """Even clients took even items, odd clients odd ones."""
    return world([list(range(c % 2, items, 2)) for c in range(clients)], items)


def everyone(of: World) -> Cohort:
    """All clients of a world."""
    return cohort_of(of, torch.arange(of.shape.clients))


def shards(of: World, size: int) -> list[Cohort]:
    """All clients in shards of one padded size and at most ``size`` clients."""
    sizes = bucket(of.train.counts)
    found: list[Cohort] = []
    for one in torch.unique(sizes):
        members = (sizes == one).nonzero()[:, 0]
        found += [cohort_of(of, part) for part in torch.split(members, size)]
    return found


def opening(shape: Shape, number: int = 0) -> Opening:
    """A round in which every client takes part."""
    clients = torch.arange(shape.clients)
    return Opening(number, shape, clients, Seeds(0)("channel", number))
