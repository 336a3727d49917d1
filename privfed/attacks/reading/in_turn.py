"""Uploads of a client that moves its vector after every rating, in an unknown order.

The released code of SFMF does so. Row k is e_k x_k, and from one row to the next the
vector moves by rho e_k y_k, rho = rate * factor. In units of the first vector's length
s the vectors are

    x_k / s = f^k (a + c_k / s^2),   c_k = sum over j <= k of rho q_j y_j / f^j,

with q_j = e_j s and f what weight decay leaves. So the rows are not quite parallel, and
how they turn tells s: one upload over-determines it. The order is told as well: taking
a row's own move back gives the direction of the row before it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.linalg import vector_norm

from privfed.attacks.reading.rank_one import (
    Lines,
    Told,
    by_sender,
    deviation,
    kept,
    unit,
    upright,
)
from privfed.surfaces import Pass

_SWEEPS = 6
_SCANNED, _STRONG = 32, 32  # lengths that are tried, on so many rows of a client
_CELLS = 4_000_000  # pairs of rows of one chunk of clients
_FEWEST = 4  # rows that can make a chain by more than chance
_TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Turning:
    """One upload as its client's vector moved; rows of a chain stand in its order.

    The noise of ``told`` is what the turning leaves unexplained.
    """

    told: Told
    start: Tensor  # (clients, width) direction of the first vector, a
    error: Tensor  # (rows,) q: errors in units of 1 / s
    moved: Tensor  # (rows, width) c of the vector before each row's move
    step: Tensor  # (rows, width) what the row's move adds to c
    left: Tensor  # (rows,) what decay has left of the vector before the move
    inverse: Tensor  # (clients,) 1 / s^2
    chained: Tensor  # (clients,) bool: the rows make one chain

    def rating(self) -> Tensor:
        """Each row's rating by the turning alone, (rows,)."""
        told = self.told
        s = self.inverse.clamp_min(_TINY).rsqrt()[told.sender]
        return upright(self.lines().at(s), told.sender, told.clients)

    def lines(self) -> Lines:
        """Each row's rating as a function of s, the first vector's length."""
        told = self.told
        now = (self.start[told.sender] * told.item_row).sum(1)
        bent = (self.moved * told.item_row).sum(1)
        return Lines(self.error + self.left * bent, self.left * now)


def turning(told: Told, how: Pass, largest: float) -> Turning:
    """Follow each client's vector through its upload, one row after the other.

    ``largest`` bounds the errors that ratings can have. Where rows do not make one
    chain, as under noise, nothing but ``chained`` is of use.
    """
    told = by_turn(told)
    all_, none = torch.ones_like(told.clear), torch.zeros_like(told.clear)
    scanned = _still(told, how, _scanned(told, how, largest))
    first = _follow(scanned, how, none)
    other = _follow(scanned, how, all_)
    better = _gap(other, how) < _gap(first, how)
    inverse = torch.where(better, other.inverse, first.inverse)
    found = _follow(replace(scanned, inverse=inverse), how, none)
    for _ in range(2):
        order, chained = _chained(found, how)
        found = _follow(replace(found, told=found.told.only(order)), how, chained)
    return found


def by_turn(told: Told) -> Told:
    """Rows by client, and within one by how far its vector seems to have turned."""
    along = told.along
    whole = told.sum(along[:, None] * told.item_row)
    whole = whole - told.axis * (whole * told.axis).sum(1, keepdim=True)
    side = (told.error * whole[told.sender]).sum(1)
    far = side / torch.where(along == 0, torch.ones_like(along), along)
    order = far.argsort(stable=True)
    return told.only(order[told.sender[order].argsort(stable=True)])


def _scanned(told: Told, how: Pass, largest: float) -> Tensor:
    """The 1 / s^2 under which a few rows have the best links, (clients,)."""
    strongest = told.along.new_zeros(told.clients)
    strongest = strongest.scatter_reduce(0, told.sender, told.along.abs(), "amax")
    least = strongest / largest
    way = unit(told.error) * told.along.sign()[:, None]
    step = _still(told, how, least).step * (-1 if how.reads == "new" else 1)
    inverse = torch.zeros_like(least)
    ratios = torch.logspace(0, 1.5, _SCANNED, dtype=torch.float64).tolist()
    for clients, at, real in _padded(told, _STRONG):
        strong = _Strong.of(told, way, at, real)
        best = torch.full_like(least[clients], torch.inf)
        for ratio in ratios:
            tried = (least[clients] * ratio).square().clamp_min(_TINY).reciprocal()
            aim = way[strong.rows] + step[strong.rows] * tried[:, None, None]
            gap = strong.gap(unit(aim))
            inverse[clients] = torch.where(gap < best, tried, inverse[clients])
            best = torch.minimum(gap, best)
    return inverse


@dataclass(frozen=True, eq=False)
class _Strong:
    """The strongest rows of a chunk of clients, and the ones they may be linked to."""

    rows: Tensor  # (chunk, strong)
    some: Tensor  # (chunk, strong) bool
    way: Tensor  # (chunk, size, width)
    barred: Tensor  # (chunk, strong, size) bool: the row itself, or none

    @classmethod
    def of(cls, told: Told, way: Tensor, at: Tensor, real: Tensor) -> "_Strong":
        loud = told.along[at].abs().masked_fill(~real, -1)
        picked = loud.topk(min(_STRONG, loud.shape[1]), dim=1).indices
        barred = (~real)[:, None].repeat(1, picked.shape[1], 1)
        barred = barred.scatter(2, picked[..., None], True)
        return cls(at.gather(1, picked), real.gather(1, picked), way[at], barred)

    def gap(self, aim: Tensor) -> Tensor:
        """How far a typical strong row's ``aim`` is from its link, (chunk,)."""
        apart = 2 - 2 * torch.bmm(aim, self.way.transpose(1, 2))
        nearest = apart.masked_fill(self.barred, torch.inf).amin(2)
        return nearest.masked_fill(~self.some, torch.nan).nanmedian(1).values


def _still(told: Told, how: Pass, inverse: Tensor) -> Turning:
    """The rows as if the vector had hardly moved."""
    step = told.along[:, None] * told.item_row * (how.rate * how.factor)
    one, zero = torch.ones_like(told.along), torch.zeros_like(step)
    none = torch.zeros_like(told.clear)
    return Turning(told, told.axis, told.along, zero, step, one, inverse, none)


def _follow(found: Turning, how: Pass, chained: Tensor) -> Turning:
    """Fit 1 / s^2, the first direction and the errors, in the rows' order."""
    told, known, start = found.told, found.inverse, found.told.axis
    left = kept(how) ** _place(told).double()
    used_left = left * kept(how) if how.reads == "new" else left
    error = told.along
    for _ in range(_SWEEPS):
        step = (error / (left * kept(how)))[:, None] * told.item_row
        step = step * (how.rate * how.factor)
        before = _before(step, told)
        used = before + step if how.reads == "new" else before
        now = start[told.sender] + known[told.sender, None] * used
        now = now * used_left[:, None]
        error = (told.error * now).sum(1) / now.square().sum(1).clamp_min(_TINY)
        weight = (error * used_left)[:, None]
        inverse, mean_row, mean_used = _fit(told, weight, used)
        known = torch.where(chained & (inverse > 0), inverse, found.inverse)
        start = unit(mean_row - known[:, None] * mean_used)
    rest = told.error - error[:, None] * now
    told = replace(told, noise=deviation(rest, told.sender, told.clients))
    return Turning(told, start, error, before, step, left, known, chained)


def _fit(told: Told, weight: Tensor, used: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Least squares of the rows on weight * (a + used / s^2), off the axis."""
    sender, clients = told.sender, told.clients
    total = by_sender(weight.square(), sender, clients).clamp_min(_TINY)
    mean_row = by_sender(weight * told.error, sender, clients) / total
    mean_used = by_sender(weight.square() * used, sender, clients) / total
    apart = used - mean_used[sender]
    axis = unit(mean_row)[sender]
    apart = apart - axis * (apart * axis).sum(1, keepdim=True)
    rest = told.error - weight * mean_row[sender]
    up = by_sender((weight * apart * rest).sum(1), sender, clients)
    down = by_sender((weight * apart).square().sum(1), sender, clients)
    return up / down.clamp_min(_TINY), mean_row, mean_used


def _ways(found: Turning, how: Pass) -> tuple[Tensor, Tensor]:
    """Each row's direction, and that of the row it is linked to: (rows, width).

    Rows that read the moved vector are linked to the row before, others to the next.
    """
    told, new = found.told, how.reads == "new"
    inverse = found.inverse[told.sender, None]
    used = found.moved + found.step if new else found.moved
    length = vector_norm(found.start[told.sender] + inverse * used, dim=1, keepdim=True)
    way = unit(told.error) * told.along.sign()[:, None]
    return way, unit(way * length + found.step * inverse * (-1 if new else 1))


def _gap(found: Turning, how: Pass) -> Tensor:
    """How far a typical one of a few strong rows is from its link, (clients,)."""
    told = found.told
    way, aim = _ways(found, how)
    gap = torch.full_like(told.noise, torch.inf)
    for clients, at, real in _padded(told, _STRONG):
        strong = _Strong.of(told, way, at, real)
        gap[clients] = strong.gap(aim[strong.rows])
    return gap


def _chained(found: Turning, how: Pass) -> tuple[Tensor, Tensor]:
    """(order, whether) rows follow each other one by one, by client.

    Rows of a client that do not make one chain keep their order.
    """
    told = found.told
    way, aim = _ways(found, how)
    place = _place(told)
    depth = torch.zeros_like(place)
    for _, at, real in _padded(told):
        depth[at[real]] = _depth(way[at], aim[at], real)[real]
    counts = torch.bincount(told.sender, minlength=told.clients)
    if how.reads == "old":
        depth = counts[told.sender] - 1 - depth
    order = depth.argsort(stable=True)
    order = order[told.sender[order].argsort(stable=True)]
    wrong = (depth[order] != place).double()
    whole = by_sender(wrong, told.sender, told.clients) == 0
    whole &= counts >= _FEWEST
    same = torch.arange(len(place), device=place.device)
    return torch.where(whole[told.sender], order, same), whole


def _depth(way: Tensor, aim: Tensor, real: Tensor) -> Tensor:
    """How many links lead from each row to its chain's end, (clients, size).

    Each row is linked to the other one that its ``aim`` is nearest to; the row whose
    link is the worst is the end.
    """
    size = real.shape[1]
    gap = 2 - 2 * torch.bmm(aim, way.transpose(1, 2))
    itself = torch.eye(size, dtype=torch.bool, device=gap.device)
    gap = gap.masked_fill(itself | ~real[:, None], torch.inf)
    worst, link = gap.min(2)
    end = worst.masked_fill(~real, -1).argmax(1, keepdim=True)
    link = link.scatter(1, end, end)
    depth = torch.ones_like(link).scatter(1, end, 0)
    for _ in range(max(1, size - 1).bit_length()):
        depth = depth + depth.gather(1, link)
        link = link.gather(1, link)
    return depth


def _padded(told: Told, of: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(clients, at, real) by chunks of clients of like size, with rows by client.

    ``at`` (chunk, size) are places of their rows, 0 where not ``real``. A chunk is as
    large as pairs of rows, or of rows and ``of`` others, allow.
    """
    counts = torch.bincount(told.sender, minlength=told.clients)
    first = counts.cumsum(0) - counts
    order = counts.argsort(stable=True)
    order = order[counts[order] > 0]
    while len(order):
        size = int(counts[order[-1]])
        take = max(1, _CELLS // (size * (of or size)))
        clients, order = order[-take:], order[:-take]
        at = first[clients, None] + torch.arange(size, device=first.device)
        real = at < (first + counts)[clients, None]
        yield clients, torch.where(real, at, 0), real


def _place(told: Told) -> Tensor:
    """Each row's place among its client's, from 0."""
    counts = torch.bincount(told.sender, minlength=told.clients)
    first = counts.cumsum(0) - counts
    return torch.arange(len(told.sender), device=counts.device) - first[told.sender]


def _before(step: Tensor, told: Told) -> Tensor:
    """Sum of a client's steps before each of its rows."""
    if not len(step):
        return step
    ahead = step.cumsum(0) - step
    counts = torch.bincount(told.sender, minlength=told.clients)
    first = (counts.cumsum(0) - counts).clamp_max(len(step) - 1)
    return ahead - ahead[first][told.sender]
