"""Uploads in the clear: the server reads every one and adds them up."""

from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.data.world import Shape
from privfed.interfaces import Channel
from privfed.messages import Total, Uploads
from privfed.views import TotalView, UploadsView


@dataclass
class Running:
    """Sums over the shards of one round so far."""

    shape: Shape
    tables: dict[str, Tensor]
    senders: dict[str, Tensor]
    dense: dict[str, Tensor]
    users: dict[str, Tensor]
    rest: dict[str, Tensor]
    weight: float = 0.0
    clients: int = 0


@dataclass(frozen=True)
class Plain(Channel):
    """No cryptography; the total is the weighted sum.

    Rows are added one after the other in client order, so that the total has the
    same bits whatever the shards.
    """

    shows = (UploadsView, TotalView)

    def open(self, shape: Shape) -> Running:
        return Running(shape, {}, {}, {}, {}, {})

    def send(
        self, opened: Running, round: int, uploads: Uploads
    ) -> tuple[Running, UploadsView]:
        weight = uploads.weight
        for name, rows in uploads.rows.items():
            value = rows.value
            if weight is not None:
                value = value * weight[rows.sender, None]
            _add_rows(opened, name, rows.item, value)
        for name, value in uploads.users.items():
            if name not in opened.users:
                size = (opened.shape.clients, value.shape[1])
                opened.users[name] = value.new_zeros(size)
            opened.users[name].index_add_(0, uploads.clients, _weighted(value, weight))
        for name, value in uploads.dense.items():
            _add_one_by_one(opened.dense, name, _weighted(value, weight))
        for name, value in uploads.rest.items():
            _add_one_by_one(opened.rest, name, _weighted(value, weight))
        count = len(uploads.clients)
        opened.weight += count if weight is None else float(weight.double().sum())
        opened.clients += count
        return opened, UploadsView(
            round=round,
            clients=uploads.clients,
            bytes_up=uploads.bytes_up(opened.shape),
            items={n: (r.sender, r.item) for n, r in uploads.rows.items()},
            uploads=uploads,
        )

    def close(self, opened: Running, round: int) -> tuple[Total, TotalView]:
        total = Total(
            opened.tables,
            opened.senders,
            opened.dense,
            opened.weight,
            opened.clients,
            opened.users,
            opened.rest,
        )
        return total, TotalView(round=round, clients=opened.clients, total=total)


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
    if name not in opened.tables:
        size = opened.shape.items
        opened.tables[name] = value.new_zeros(size, value.shape[1])
        opened.senders[name] = torch.zeros(size, dtype=torch.int64, device=item.device)
    opened.tables[name].index_add_(0, item, value)
    opened.senders[name].index_add_(0, item, torch.ones_like(item))
