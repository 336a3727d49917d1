"""Uploads by hand, and each client's as one long vector."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from privfed.channels.plain import Plain
from privfed.data.world import Shape
from privfed.messages import Total, Uploads, summed
from tests.worlds import opening

ITEMS, WIDTH = 12, 4


def some_uploads(
    clients: Sequence[int], share: float = 0.5, seed: int = 0, weighted: bool = False
) -> Uploads:
    """Normal rows for a share of the items, the last item for nobody, and a layer."""
    rng = Generator().manual_seed(seed)
    taken = torch.rand(len(clients), ITEMS, generator=rng) < share
    taken[:, -1] = False
    sender, item = taken.nonzero(as_tuple=True)
    value = torch.randn(len(item), WIDTH, generator=rng)
    weight = torch.randint(1, 9, (len(clients),), generator=rng).float()
    return Uploads(
        torch.tensor(clients),
        {"items": summed(sender, item, value, ITEMS)},
        {"out.weight": torch.randn(len(clients), 2, 3, generator=rng)},
        weight if weighted else None,
        {"items": 0.1, "out.weight": 0.1},
    )


def vectors(uploads: Uploads) -> Tensor:
    """Every number that a client sends or leaves at zero, (clients, numbers)."""
    table = torch.zeros(len(uploads.clients), ITEMS, WIDTH)
    for sender, item, value in zip(*columns(uploads), strict=True):
        table[sender, item] = value
    dense = uploads.dense["out.weight"].flatten(1)
    return torch.cat([table.flatten(1), dense], 1)


def columns(uploads: Uploads) -> tuple[list[int], list[int], Tensor]:
    """Sender, item and value of the rows."""
    rows = uploads.rows["items"]
    return rows.sender.tolist(), rows.item.tolist(), rows.value


def sent_by(uploads: Uploads) -> list[set[int]]:
    """The items that each client sent."""
    found: list[set[int]] = [set() for _ in uploads.clients]
    for sender, item in zip(*columns(uploads)[:2], strict=True):
        found[sender].add(item)
    return found


def total(*parts: Uploads) -> Total:
    """What a server that adds up gets."""
    channel = Plain()
    opened = channel.open(opening(Shape(100, ITEMS)))
    for part in parts:
        opened, _ = channel.send(opened, part)
    return channel.close(opened).total
