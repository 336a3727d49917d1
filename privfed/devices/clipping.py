"""Bounds on a whole upload: every number of all its tensors together.

A client's part in a sum is what bounds must be about. Clipped row by row, or tensor by
tensor, an upload of r rows still moves the sum by sqrt(r) times the bound.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from privfed.messages import Rows, Uploads

Norm = Literal["l1", "l2"]

_MARGIN = 1e-6  # the most that rounding to single precision adds, relative
_NEAR_ONE = 2.0**-24  # the most that it adds to a factor near 1, absolute


def norms(uploads: Uploads, norm: Norm = "l2") -> Tensor:
    """Norm of each client's whole upload, (clients,) in double precision.

    Where decay shrank rows that training left alone, by a factor near 1, its distance
    from 1 counts as one more number. Weights do not count: a client that is bounded
    must not have its upload multiplied.
    """
    clients = len(uploads.clients)
    size = torch.zeros(clients, dtype=torch.float64, device=uploads.clients.device)
    for rows in uploads.rows.values():
        size.index_add_(0, rows.sender, sizes(rows.value, norm))
    parts = [*uploads.dense.values(), *uploads.users.values()]
    parts += [(factor - 1)[:, None] for factor in uploads.rest.values()]
    for part in parts:
        size += sizes(part.flatten(1), norm)
    return size.sqrt() if norm == "l2" else size


def sizes(value: Tensor, norm: Norm = "l2") -> Tensor:
    """What each row adds to a norm, added up in order whatever rows are beside it."""
    each = value.double()
    each = each.square() if norm == "l2" else each.abs()
    return each.cumsum(1)[:, -1]


def clipped(uploads: Uploads, clip: float, norm: Norm = "l2") -> Uploads:
    """Each client's whole upload scaled down to norm at most ``clip``.

    Every client then counts 1: no weight is sent. An upload that is not finite, as a
    diverged device makes, becomes zero.
    """
    length = norms(uploads, norm)
    most = max(0.0, clip * (1 - _MARGIN) - _NEAR_ONE * len(uploads.rest))
    factor = torch.where(length <= clip, 1.0, most / length.clamp_min(1e-300))
    return _scaled(uploads, torch.where(length.isfinite(), factor, 0.0))


def _scaled(uploads: Uploads, factor: Tensor) -> Uploads:
    """Each client's upload times a factor of its own."""

    def scale(value: Tensor, by: Tensor) -> Tensor:
        by = by.to(value.dtype).view(-1, *[1] * (value.dim() - 1))
        return torch.where(by > 0, value * by, 0.0)

    def rows(table: Rows) -> Rows:
        return replace(table, value=scale(table.value, factor[table.sender]))

    def each(parts: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {name: scale(value, factor) for name, value in parts.items()}

    return replace(
        uploads,
        rows={name: rows(table) for name, table in uploads.rows.items()},
        dense=each(uploads.dense),
        users=each(uploads.users),
        rest={n: 1 + scale(v - 1, factor) for n, v in uploads.rest.items()},
        weight=None,
    )
