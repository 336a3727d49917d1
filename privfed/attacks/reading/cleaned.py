"""Uploaded rows without what is known of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from privfed.attacks.reading.axis import by_client, principal, unit
from privfed.messages import Rows

_TURNS = 10  # of fitting the client's own factors and its axis in turn
_NEAR = 1e-5  # a row whose length is this near to the longest was cut


@dataclass(frozen=True, eq=False)
class Part:
    """A known part of a table's rows; without a factor it is the client's own."""

    row: Tensor  # (items, width)
    factor: float | None


def upstream(weight: Tensor) -> Tensor:
    """What rows that a layer read are multiplied with to get what came back to it.

    Such a row's gradient is the transpose of ``weight`` (out, in) times a vector of
    the output's width, which is narrower: most noise lies outside. (in, out)
    """
    square = weight @ weight.T
    eye = torch.eye(len(square), dtype=square.dtype, device=square.device)
    solved: Tensor = torch.linalg.solve(
        square + eye * (1e-6 * square.diagonal().mean()), eye
    )
    return weight.T @ solved


def without(
    rows: Rows, parts: Sequence[Part], longest: float, clients: int, power: int
) -> Rows:
    """The rows less their known parts.

    Of a row that was cut to ``longest`` the part along the client's axis remains, by
    least squares on that axis and the known part.
    """
    fixed = [part for part in parts if part.factor is not None]
    free = [part for part in parts if part.factor is None]
    left = rows
    if fixed:
        known = sum(part.row[rows.item] * (part.factor or 0.0) for part in fixed)
        assert isinstance(known, Tensor)
        left = _uncut(rows, known, longest, clients, power)
    return _fitted(left, free, clients, power) if free else left


def _uncut(rows: Rows, known: Tensor, longest: float, clients: int, power: int) -> Rows:
    length = torch.linalg.vector_norm(rows.value, dim=1)
    cut = (length / longest - 1).abs() < _NEAR
    left = replace(rows, value=rows.value - known)
    if not cut.any():
        return left
    beside = unit(known)
    across = rows.value - beside * (rows.value * beside).sum(1, keepdim=True)
    guess = replace(rows, value=torch.where(cut[:, None], across, left.value))
    _, axis, _ = principal(guess, clients, power)
    mine = axis[rows.sender]
    apart = mine - beside * (mine * beside).sum(1, keepdim=True)
    along = (across * apart).sum(1) / apart.square().sum(1).clamp_min(1e-12)
    return replace(
        rows, value=torch.where(cut[:, None], mine * along[:, None], left.value)
    )


def _fitted(rows: Rows, parts: Sequence[Part], clients: int, power: int) -> Rows:
    """Subtract the parts with the factors that leave each client's rows most in line.

    Least squares for the factors and the principal axis in turn.
    """
    known = torch.stack([part.row[rows.item] for part in parts])  # (parts, rows, width)
    left = rows
    for _ in range(_TURNS):
        _, axis, _ = principal(left, clients, power)
        mine = axis[rows.sender]
        factor = _factors(rows, known, mine, clients)[rows.sender]  # (rows, parts)
        value = rows.value - torch.einsum("rp,prw->rw", factor, known)
        left = replace(rows, value=value)
    return left


def _factors(rows: Rows, known: Tensor, axis: Tensor, clients: int) -> Tensor:
    """Each client's factors, (clients, parts), of what lies across its axis."""

    def across(value: Tensor) -> Tensor:
        return value - axis * (value * axis).sum(-1, keepdim=True)

    apart, target = across(known), across(rows.value)
    gram = torch.einsum("prw,qrw->rpq", apart, apart)
    pull = torch.einsum("prw,rw->rp", apart, target)
    left = by_client(gram, rows.sender, clients).double()
    right = by_client(pull, rows.sender, clients).double()
    size = left.diagonal(dim1=1, dim2=2).amax(1).clamp_min(1e-30)
    eye = torch.eye(len(known), dtype=left.dtype, device=left.device)
    solved: Tensor = torch.linalg.solve(left + eye * size[:, None, None] * 1e-9, right)
    return solved.to(rows.value.dtype)
