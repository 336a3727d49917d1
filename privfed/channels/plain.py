"""Uploads in the clear: the server reads every one and adds them up."""

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from privfed.interfaces import Channel, Delivered, Opening
from privfed.messages import Spent, Total, Uploads
from privfed.views import TotalView, UploadsView


@dataclass
class Running:
    """Sums over the shards of one round so far."""

    opening: Opening
    tables: dict[str, Tensor] = field(default_factory=dict)
    senders: dict[str, Tensor] = field(default_factory=dict)
    dense: dict[str, Tensor] = field(default_factory=dict)
    users: dict[str, Tensor] = field(default_factory=dict)
    rest: dict[str, Tensor] = field(default_factory=dict)
    weight: float = 0.0
    clients: int = 0
    bytes_up: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Plain(Channel):
    """No cryptography; the total is the weighted sum.

    Rows are added one after the other in client order, so that the total has the
    same bits whatever the shards.
    """

    hides = "nothing"
    does_not_hide = "any upload: the server reads every one"
    trust = "the server, with everything"
    cost = "none"
    paper = "McMahan et al., AISTATS 2017"
    shows = (UploadsView, TotalView)

    def open(self, opening: Opening) -> Running:
        return Running(opening)

    def send(self, opened: Running, uploads: Uploads) -> tuple[Running, UploadsView]:
        start = time.thread_time()
        _add(opened, uploads)
        opened.seconds += time.thread_time() - start
        view = seen(uploads, opened.opening)
        opened.bytes_up += int(view.bytes_up.sum())
        return opened, view

    def close(self, opened: Running) -> Delivered:
        total = Total(
            opened.tables,
            opened.senders,
            opened.dense,
            opened.weight,
            opened.clients,
            opened.users,
            opened.rest,
        )
        number = opened.opening.number
        view = TotalView(round=number, clients=opened.clients, total=total)
        spent = Spent(bytes_up=opened.bytes_up, server_seconds=opened.seconds)
        return Delivered(total, [view], spent)


def seen(uploads: Uploads, opening: Opening) -> UploadsView:
    """What the server sees of uploads in the clear."""
    return UploadsView(
        round=opening.number,
        clients=uploads.clients,
        bytes_up=uploads.bytes_up(opening.shape),
        items={n: (r.sender, r.item) for n, r in uploads.rows.items()},
        uploads=uploads,
    )


def _add(opened: Running, uploads: Uploads) -> None:
    weight = uploads.weight
    for name, rows in uploads.rows.items():
        value = rows.value
        if weight is not None:
            value = value * weight[rows.sender, None]
        _add_rows(opened, name, rows.item, value)
    for name, value in uploads.users.items():
        if name not in opened.users:
            size = (opened.opening.shape.clients, value.shape[1])
            opened.users[name] = value.new_zeros(size)
        opened.users[name].index_add_(0, uploads.clients, _weighted(value, weight))
    for name, value in uploads.dense.items():
        _add_one_by_one(opened.dense, name, _weighted(value, weight))
    for name, value in uploads.rest.items():
        _add_one_by_one(opened.rest, name, _weighted(value, weight))
    count = len(uploads.clients)
    opened.weight += count if weight is None else float(weight.double().sum())
    opened.clients += count


def _weighted(value: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return value
    return value * weight.view(-1, *[1] * (value.dim() - 1))


def _add_one_by_one(sums: dict[str, Tensor], name: str, value: Tensor) -> None:
    if name not in sums:
        sums[name] = torch.zeros_like(value[0])
    one = torch.zeros(len(value), dtype=torch.int64, device=value.device)
    sums[name].view(1, -1).index_add_(0, one, value.reshape(len(value), -1))


def _add_rows(opened: Running, name: str, item: Tensor, value: Tensor) -> None:
    size = opened.opening.shape.items
    senders = torch.bincount(item, minlength=size)
    if name in opened.tables:
        item = torch.cat([torch.arange(size, device=item.device), item])
        value = torch.cat([opened.tables[name], value])
        opened.senders[name] += senders
    else:
        opened.senders[name] = senders
    opened.tables[name] = _sum_by_item(item, value, size)


def _sum_by_item(item: Tensor, value: Tensor, items: int) -> Tensor:
    """Each item's values, added one after the other in their order: (items, width).

    Bags of rows are summed an order of magnitude faster than by ``index_add_``.
    """
    short = item.short() if items < 2**15 else item  # these sort by radix
    ends = pad(torch.bincount(item, minlength=items).cumsum(0), (1, 0))
    order = short.argsort(stable=True)
    return embedding_bag(order, value, ends, mode="sum", include_last_offset=True)
