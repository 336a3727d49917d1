"""Uploads in the clear: the server reads every one and adds them up."""

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from privfed.interfaces import Channel, Delivered, Opening
from privfed.messages import Rows, Spent, Total, Uploads
from privfed.mixed import Mixed, Parts
from privfed.views import TotalView, UploadsView


@dataclass
class Running:
    """Sums over the shards of one round so far."""

    opening: Opening
    tables: dict[str, Tensor] = field(default_factory=dict)
    mixed: dict[str, Parts] = field(default_factory=dict)
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
            _tables(opened),
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
        if isinstance(rows, Mixed) and rows.parts is not None and weight is None:
            _add_parts(opened, name, rows, rows.parts)
            continue
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
    _count(opened, name, item)
    if name in opened.tables:
        item = torch.cat([torch.arange(size, device=item.device), item])
        value = torch.cat([opened.tables[name], value])
    order, ends = _by_item(item, size)
    opened.tables[name] = embedding_bag(
        order, value, ends, mode="sum", include_last_offset=True
    )


def _add_parts(opened: Running, name: str, rows: Rows, parts: Parts) -> None:
    """Add rows up by their parts: those of the items' own rows are one number each."""
    size, sender, item = opened.opening.shape.items, rows.sender, rows.item
    _count(opened, name, item)
    x, a, b = parts.x, parts.a, parts.b.new_zeros(size)
    if name in opened.mixed:
        sums = opened.mixed[name]
        items = torch.arange(size, device=item.device)
        x, a, b = torch.cat([sums.x, x]), torch.cat([sums.a, a]), sums.b
        sender, item = torch.cat([items, sender + size]), torch.cat([items, item])
    order, ends = _by_item(item, size)
    total = embedding_bag(
        sender.index_select(0, order),
        x,
        ends,
        mode="sum",
        per_sample_weights=a.index_select(0, order),
        include_last_offset=True,
    )
    b = b.index_add(0, rows.item, parts.b)
    opened.mixed[name] = Parts(total, a.new_ones(size), parts.table, b)


def _tables(opened: Running) -> dict[str, Tensor]:
    tables = dict(opened.tables)
    for name, sums in opened.mixed.items():
        mixed = sums.x + sums.table * sums.b[:, None]
        tables[name] = tables[name] + mixed if name in tables else mixed
    return tables


def _count(opened: Running, name: str, item: Tensor) -> None:
    senders = torch.bincount(item, minlength=opened.opening.shape.items)
    known = opened.senders.get(name)
    opened.senders[name] = senders if known is None else known + senders


def _by_item(item: Tensor, items: int) -> tuple[Tensor, Tensor]:
    """(order, ends): rows by item, in their order, for bags that are summed.

    Such sums have the bits of ``index_add_`` and take a tenth of its time.
    """
    short = item.short() if items < 2**15 else item  # these sort by radix
    ends = pad(torch.bincount(item, minlength=items).cumsum(0), (1, 0))
    return short.argsort(stable=True), ends
