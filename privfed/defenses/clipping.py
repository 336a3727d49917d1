"""Cutting uploads to a norm, by row, by tensor or whole."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.linalg import vector_norm

from privfed.devices.clipping import sizes
from privfed.messages import Rows, Uploads

Per = Literal["row", "tensor", "upload"]


def clipped(
    uploads: Uploads, clip: float, per: Per, size: Mapping[str, float]
) -> Uploads:
    """Shorten to L2 norm ``clip`` what is longer.

    ``size`` is the length that counts as 1, by tensor. Of a dense tensor a row is the
    last axis, and each number of a bias is a row of its own.
    """
    if per == "row":
        return _by_row(uploads, clip, size)
    squares = squared(uploads, size)
    if per == "upload":
        whole = torch.stack([*squares.values()]).sum(0)
        squares = dict.fromkeys(squares, whole)
    return scaled(uploads, {n: _factor(s.sqrt(), clip) for n, s in squares.items()})


def squared(uploads: Uploads, size: Mapping[str, float]) -> dict[str, Tensor]:
    """Each tensor's squared L2 norm by client, (clients,)."""
    found: dict[str, Tensor] = {}
    for name, rows in uploads.rows.items():
        each = sizes(rows.value / size[name])
        zeros = each.new_zeros(len(uploads.clients))
        found[name] = zeros.index_add(0, rows.sender, each)
    for name, value in {**uploads.dense, **uploads.users}.items():
        found[name] = sizes((value / size[name]).flatten(1))
    return found


def scaled(uploads: Uploads, factor: Mapping[str, Tensor]) -> Uploads:
    """Multiply each client's tensors, by name, by its factor, (clients,)."""

    def rows(name: str, of: Rows) -> Rows:
        return replace(of, value=of.value * factor[name][of.sender, None])

    def dense(name: str, value: Tensor) -> Tensor:
        return value * factor[name].view(-1, *[1] * (value.dim() - 1))

    return replace(
        uploads,
        rows={n: rows(n, of) for n, of in uploads.rows.items()},
        dense={n: dense(n, value) for n, value in uploads.dense.items()},
        users={n: dense(n, value) for n, value in uploads.users.items()},
    )


def _by_row(uploads: Uploads, clip: float, size: Mapping[str, float]) -> Uploads:
    def cut(name: str, value: Tensor) -> Tensor:
        length = vector_norm(value, dim=-1, keepdim=True) / size[name]
        return value * _factor(length, clip)

    def dense(name: str, value: Tensor) -> Tensor:
        if value.dim() > 2:
            return cut(name, value)
        return cut(name, value[..., None])[..., 0]

    return replace(
        uploads,
        rows={n: replace(of, value=cut(n, of.value)) for n, of in uploads.rows.items()},
        dense={n: dense(n, value) for n, value in uploads.dense.items()},
        users={n: cut(n, value) for n, value in uploads.users.items()},
    )


def _factor(length: Tensor, clip: float) -> Tensor:
    return (clip / length.clamp_min(1e-30)).clamp_max(1.0).float()
