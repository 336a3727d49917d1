"""What all honest uploads of a round come to, for whoever has read them.

With ``per="upload"`` every honest client counts and a row that it did not send is zero;
with ``per="item"`` a row is compared with the rows of its item's senders alone. Rows of
an item that nobody sent are not there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from privfed.messages import Rows, Uploads

Per = Literal["item", "upload"]


@dataclass(frozen=True, eq=False)
class Spread:
    """Mean and deviation of some numbers, and how many there were of each."""

    mean: Tensor  # (rows, width), or the size of a dense tensor
    deviation: Tensor  # as mean; 0 where there is one number alone
    count: Tensor  # (rows,), or ()


@dataclass(frozen=True, eq=False)
class Moments:
    """The spread of every table over the items that were sent, and of the rest."""

    items: Mapping[str, Tensor]  # (rows,) by table, ascending
    rows: Mapping[str, Spread]
    dense: Mapping[str, Spread]


def moments(uploads: Uploads, per: Per, items: int) -> Moments:
    """Mean and standard deviation (of a sample, n - 1), every client counting alike."""
    clients = len(uploads.clients)
    sent = {n: torch.unique(rows.item) for n, rows in uploads.rows.items()}
    rows = {}
    for name, table in uploads.rows.items():
        senders = torch.bincount(table.item, minlength=items)[sent[name]]
        count = senders if per == "item" else torch.full_like(senders, clients)
        first, second = (
            added(table, table.value.double() ** power, items)[sent[name]]
            for power in (1, 2)
        )
        rows[name] = _spread(first, second, count, table.value)
    dense = {
        name: _spread(
            value.double().sum(0),
            value.double().square().sum(0),
            torch.tensor(clients, device=value.device),
            value,
        )
        for name, value in uploads.dense.items()
    }
    return Moments(sent, rows, dense)


def added(rows: Rows, value: Tensor, items: int) -> Tensor:
    """Values (rows, width) summed by item, (items, width)."""
    return value.new_zeros(items, value.shape[1]).index_add_(0, rows.item, value)


def _spread(first: Tensor, second: Tensor, count: Tensor, like: Tensor) -> Spread:
    """From the sums of numbers and of their squares."""
    times = count.clamp_min(1).view(*count.shape, *[1] * (first.dim() - count.dim()))
    mean = first / times
    variance = (second - first * mean) / (times - 1).clamp_min(1)
    deviation = variance.clamp_min(0).sqrt()
    return Spread(mean.to(like.dtype), deviation.to(like.dtype), count)


@dataclass(frozen=True, eq=False)
class Sums:
    """What a server that adds up would get of the honest clients: weighted sums."""

    items: Mapping[str, Tensor]  # (rows,) by table, ascending
    rows: Mapping[str, Tensor]  # (rows, width)
    weights: Mapping[str, Tensor]  # (rows,) of the item's senders together
    dense: Mapping[str, Tensor]
    weight: float  # of all clients together


def sums(uploads: Uploads, items: int) -> Sums:
    """Uploads added up as they count."""
    weight = weights(uploads)
    found, rows, senders = {}, {}, {}
    for name, table in uploads.rows.items():
        found[name] = sent = torch.unique(table.item)
        each = weight[table.sender, None]
        rows[name] = added(table, table.value * each, items)[sent]
        senders[name] = added(table, each, items)[sent, 0]
    dense = {
        name: torch.tensordot(weight, value, dims=1)
        for name, value in uploads.dense.items()
    }
    return Sums(found, rows, senders, dense, float(weight.sum()))


def weights(uploads: Uploads) -> Tensor:
    """What each client counts, (clients,)."""
    if uploads.weight is not None:
        return uploads.weight
    return torch.ones(len(uploads.clients), device=uploads.clients.device)
