"""A sum of rank-one uploads, taken apart again.

Each client's rows lie on a line of their own through the origin. A row that a single
client of the cohort sent is in the sum as it was sent; several such rows of one client
give its line away, for in many dimensions no others are parallel by chance. With the
lines known a row of few senders has one way to be their sum.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

_APART = 5.0  # lines nearer than so many times their bend cannot be told apart


@dataclass(frozen=True, eq=False)
class Unmixed:
    """The lines found in one sum, and the parts of rows along them."""

    axis: Tensor  # (lines, width) unit vectors
    line: Tensor  # (parts,)
    row: Tensor  # (parts,) index of the sum's row
    along: Tensor  # (parts,) signed length


def unmix(
    value: Tensor, senders: Tensor, most: int, least: int = 3, bend: float = 0.02
) -> Unmixed:
    """Find up to ``most`` lines in ``value`` (rows, width); a line has ``least`` rows.

    ``senders`` (rows,) counts the clients in each row. A row belongs to a line, and
    its parts to several, where ``bend`` of its length or less is off them.
    """
    value = value.double()
    if most == 1:  # an upload
        return _whole(value)
    lone = (senders == 1).nonzero()[:, 0]
    axis, line = _lines(value[lone], most, least, bend)
    line, lone = line[line >= 0], lone[line >= 0]
    parts = [(line, lone, (value[lone] * axis[line]).sum(1))]
    for among in (_pairs, _few):
        parts.append(among(value, senders, axis, bend))
    found = [torch.cat(one) for one in zip(*parts, strict=True)]
    return Unmixed(axis, *found)


def _whole(value: Tensor) -> Unmixed:
    """All rows along their first axis."""
    row = value.abs().sum(1).nonzero()[:, 0]
    axis = torch.linalg.svd(value[row], full_matrices=False)[2][:1]
    return Unmixed(axis, torch.zeros_like(row), row, (value[row] @ axis.T).flatten())


def _lines(value: Tensor, most: int, least: int, bend: float) -> tuple[Tensor, Tensor]:
    """Axes (lines, width), and each row's line, -1 without one; longest lines first."""
    unit = normalize(value)
    line = torch.full_like(value[:, 0], -1, dtype=torch.int64)
    free = value.abs().sum(1) > 0
    close = (unit @ unit.T).square() >= 1 - bend**2
    axes: list[Tensor] = []
    while len(axes) < most:
        count = (close & free & free[:, None]).sum(1)
        if not len(count) or int(count.max()) < least:
            break
        first = int(count.argmax())
        axis = torch.linalg.svd(value[close[first] & free], full_matrices=False)[2][0]
        mine = free & ((unit @ axis).square() >= 1 - bend**2)
        free = free & ~mine
        free[first] = False
        if int(mine.sum()) >= least:
            line[mine] = len(axes)
            axes.append(axis)
    return torch.stack(axes) if axes else value[:0], line


def _pairs(
    value: Tensor, senders: Tensor, axis: Tensor, bend: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of two senders as the sum of two parts: (line, row, along)."""
    row = (senders == 2).nonzero()[:, 0]
    if len(axis) < 2 or not len(row):
        return _nothing(value)
    along = value[row] @ axis.T  # (rows, lines)
    angle = axis @ axis.T
    one, other = along[:, :, None], along[:, None]
    free = 1 - angle.square()
    apart = free >= (_APART * bend) ** 2
    told = one.square() + other.square() - 2 * angle * one * other
    told = torch.where(apart, told / free.clamp_min(1e-9), 0.0)
    best, at = told.flatten(1).max(1)
    clear = best >= (1 - bend**2) * value[row].square().sum(1)
    row, at = row[clear], at[clear]
    lines = torch.stack([at // len(axis), at % len(axis)], 1)  # (rows, 2)
    part = torch.linalg.lstsq(axis[lines].transpose(1, 2), value[row, :, None]).solution
    return lines.flatten(), row.repeat_interleave(2), part.flatten()


def _few(
    value: Tensor, senders: Tensor, axis: Tensor, bend: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of three senders or more, where all lines together leave dimensions over.

    From the sum of all lines the one whose part is missed least is taken away, until
    there are as many as senders.
    """
    lines, width = axis.shape
    row = ((senders > 2) & (senders <= lines)).nonzero()[:, 0]
    if 2 * lines > width or not len(row):
        return _nothing(value)
    gram, aim = axis @ axis.T, value[row] @ axis.T
    used = torch.ones_like(aim, dtype=torch.bool)
    while True:
        both = used[:, :, None] & used[:, None]
        system = torch.where(both, gram, 0.0) + torch.diag_embed((~used).double())
        inverse = torch.linalg.inv(system + torch.eye(lines).double() * 1e-9)
        part = (inverse @ (aim * used)[..., None])[..., 0] * used
        surplus = used.sum(1) > senders[row]
        if not bool(surplus.any()):
            break
        missed = part.square() / inverse.diagonal(dim1=1, dim2=2)
        least = missed.masked_fill(~used, torch.inf).argmin(1)
        used[surplus, least[surplus]] = False
    off = (value[row] - part @ axis).square().sum(1)
    clear = off <= bend**2 * value[row].square().sum(1)
    sine = (1 / inverse.diagonal(dim1=1, dim2=2)).masked_fill(~used, 1.0).amin(1)
    clear &= sine >= (_APART * bend) ** 2
    at, line = (used & clear[:, None]).nonzero(as_tuple=True)
    return line, row[at], part[at, line]


def _nothing(value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    none = torch.zeros(0, dtype=torch.int64)
    return none, none, value.new_zeros(0)
