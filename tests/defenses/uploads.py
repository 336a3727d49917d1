"""What the tests of defenses of uploads share: an upload, and parts of it."""

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt

import torch
from torch import Generator, Tensor

from privfed.data.world import Shape
from privfed.interfaces import Defense, Turn
from privfed.messages import Rows, Uploads, join
from privfed.seeds import Seeds

SHAPE = Shape(30, 50)
TURN = Turn(3, SHAPE, Seeds(4)("upload 0", 3))
CLIENTS, WIDTH = 10, 12


def turn(number: int) -> Turn:
    return Turn(number, SHAPE, Seeds(4)("upload 0", number))


def _normal(*size: int, seed: int) -> Tensor:
    return torch.randn(*size, generator=Generator().manual_seed(seed))


def _rows(seed: int, width: int, like: Rows | None = None) -> Rows:
    """Between none and all of the items from each client."""
    if like is None:
        chance = torch.rand(CLIENTS, 50, generator=Generator().manual_seed(seed))
        share = torch.linspace(0, 1, CLIENTS)[:, None]
        sender, item = (chance < share).nonzero(as_tuple=True)
    else:
        sender, item = like.sender, like.item
    return Rows(sender, item, _normal(len(sender), width, seed=seed + 1))


def sent() -> Uploads:
    """Two tables with the same rows, a layer, a row of a users' table, and weights."""
    rows = _rows(0, WIDTH)
    return Uploads(
        torch.arange(10, 20),
        {"items": rows, "items_mlp": _rows(7, 5, rows)},
        {
            "layer.weight": _normal(CLIENTS, 6, 4, seed=2),
            "layer.bias": _normal(CLIENTS, 6, seed=3),
        },
        torch.arange(1.0, 11.0),
        {
            "items": 5.0,
            "items_mlp": 0.5,
            "layer.weight": 0.1,
            "layer.bias": 0.1,
            "users": 2.0,
        },
        {"users": _normal(CLIENTS, 7, seed=5)},
    )


def some(of: Uploads, positions: Sequence[int]) -> Uploads:
    """What some of its clients sent."""
    at = torch.tensor(positions)

    def rows(table: Rows) -> Rows:
        mine = torch.isin(table.sender, at)
        sender = torch.searchsorted(at, table.sender[mine])
        return Rows(sender, table.item[mine], table.value[mine])

    assert of.weight is not None
    return replace(
        of,
        clients=of.clients[at],
        rows={n: rows(r) for n, r in of.rows.items()},
        dense={n: v[at] for n, v in of.dense.items()},
        users={n: v[at] for n, v in of.users.items()},
        weight=of.weight[at],
        packed={n: v[at] for n, v in of.packed.items()},
    )


def tensors(of: Uploads) -> dict[str, Tensor]:
    """Everything that an upload says, by name."""
    found = {"clients": of.clients}
    for name, rows in of.rows.items():
        found |= {f"{name} sender": rows.sender, f"{name} item": rows.item}
        found[f"{name} value"] = rows.value
    found |= {**of.dense, **of.users}
    found |= {f"{name} packed": value for name, value in of.packed.items()}
    return found if of.weight is None else {**found, "weight": of.weight}


def alike(one: Uploads, other: Uploads) -> None:
    """Assert that two uploads say the same, bit for bit."""
    first, second = tensors(one), tensors(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def in_shards(defense: Defense, of: Uploads, size: int, at: Turn = TURN) -> Uploads:
    """The step, a few clients at a time."""
    parts = torch.split(torch.arange(len(of.clients)), size)
    return join([defense.on_upload(some(of, part.tolist()), at) for part in parts])


def is_scale(spread: float, expected: float, count: int, kurtosis: float = 3.0) -> bool:
    """Whether a measured deviation fits, at 5 sigma of its own error."""
    return abs(spread / expected - 1) < 5 * sqrt((kurtosis - 1) / (4 * count))
