"""Uploads cut to a norm, at the server."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from privfed.channels.robust.distances import flat
from privfed.messages import Rows, Uploads


def bounded(
    uploads: Uploads, per: Literal["item", "upload"], bound: float | Literal["median"]
) -> Uploads:
    """The uploads, each of at most a norm; what is not finite becomes nothing."""
    rest = {n: v.nan_to_num(1.0).clamp(0, 1) for n, v in uploads.rest.items()}
    uploads = replace(uploads, rest={})
    cut = _whole(uploads, bound) if per == "upload" else _each(uploads, bound)
    return replace(cut, rest=rest)


def _whole(uploads: Uploads, bound: float | Literal["median"]) -> Uploads:
    square = flat(uploads).double().square().sum(1)
    for table in uploads.rows.values():
        each = table.value.double().square().sum(1)
        square = square.index_add(0, table.sender, each)
    factor = _factor(square.sqrt(), bound)
    rows = {n: _times(t, factor[t.sender]) for n, t in uploads.rows.items()}
    return replace(uploads, rows=rows, dense=_dense(uploads, factor))


def _each(uploads: Uploads, bound: float | Literal["median"]) -> Uploads:
    rows = {
        name: _times(table, _factor(_norms(table.value), bound))
        for name, table in uploads.rows.items()
    }
    factor = _factor(_norms(flat(uploads)), bound)
    return replace(uploads, rows=rows, dense=_dense(uploads, factor))


def _norms(x: Tensor) -> Tensor:
    return x.double().square().sum(1).sqrt()


def _factor(norm: Tensor, bound: float | Literal["median"]) -> Tensor:
    norm = norm.nan_to_num(torch.inf)
    most = norm.median() if bound == "median" else norm.new_tensor(bound)
    if not len(norm) or not most.isfinite():
        return norm.isfinite().double()
    factor = torch.where(norm > most, most / norm, 1.0)
    return torch.where(norm.isfinite(), factor, 0.0)


def _times(rows: Rows, factor: Tensor) -> Rows:
    return replace(rows, value=_scaled(rows.value, factor))


def _dense(uploads: Uploads, factor: Tensor) -> dict[str, Tensor]:
    return {name: _scaled(value, factor) for name, value in uploads.dense.items()}


def _scaled(value: Tensor, factor: Tensor) -> Tensor:
    shape = (-1, *[1] * (value.dim() - 1))
    by = factor.view(shape).to(value.dtype)
    return torch.where(by > 0, value * by, 0.0)
