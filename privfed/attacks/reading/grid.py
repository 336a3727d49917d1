"""Ratings on a known grid: one upload tells the one number that hides them all.

``Lines`` give every rating of a client as first / s + second * s, and the right s puts
all of them on the grid at once. Each loud row with each rating on the grid leaves two
candidates, the roots of second s^2 - rating s + first = 0. Where an upload was
shortened by an unknown factor c, first / (c s) + second * s has two unknowns, and two
rows with two ratings leave one candidate. Candidates are weighed by their likelihood.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from privfed.attacks.reading.rank_one import Lines, by_sender

_LOUDEST = 64  # rows of a client that candidates are judged by
_CELLS = 4_000_000  # rows times candidates of one chunk of clients
_FREEDOM = 6.0  # log likelihood that a second unknown must add
_SHARES = (2e-2, 2e-3, 2e-4, 1e-5)  # deviations, of a client's loudest row
_PIVOTS = 5  # loudest rows that candidates come from
_PAIRS = 4  # pairs of rows that candidates with two unknowns come from
_DISTINCT = 0.02  # relative difference from which on candidates tell other ratings
_STEPS = 5
_QUANTILE, _OF_NORMAL = 0.15, 0.189  # that share of a normal's deviations are below
_TINY = 1e-300


@dataclass(frozen=True)
class Grid:
    """The scale that ratings live on."""

    low: float
    high: float
    step: float

    def points(self, like: Tensor) -> Tensor:
        """Every rating that there is."""
        count = round((self.high - self.low) / self.step) + 1
        place = torch.arange(count, device=like.device, dtype=like.dtype)
        return self.low + self.step * place

    def nearest(self, rating: Tensor) -> Tensor:
        """The rating on the grid next to each."""
        place = ((rating - self.low) / self.step).round()
        return (self.low + self.step * place).clamp(self.low, self.high)

    def holds(self, rating: Tensor, sender: Tensor, clients: int) -> Tensor:
        """Whether ratings lie as near to the grid as the best of their client's do.

        How far real ones lie off is told by the nearest: of a client's ratings one in
        six at least is taken to be real.
        """
        place = (rating - self.low) / self.step
        away = (place - place.round()).abs()  # noise may lead beyond the ends
        order = away.argsort(stable=True)
        order = order[sender[order].argsort(stable=True)]
        counts = torch.bincount(sender, minlength=clients)
        at = counts.cumsum(0) - counts + (counts * _QUANTILE).long()
        spread = torch.zeros(clients, dtype=rating.dtype, device=rating.device)
        some = counts > 0
        spread[some] = away[order[at[some]]] / _OF_NORMAL
        return away <= (8 * spread).clamp(0.02, 0.5)[sender]

    def praise(self, rating: Tensor) -> Tensor:
        """How often a rating is given, as a guess: the best thrice as often."""
        share = 1 + 2 * (rating - self.low) / (self.high - self.low)
        return share / (2 * len(self.points(rating)))


@dataclass(frozen=True, eq=False)
class Fit:
    """Factors of ``first`` and ``second`` that put a client's ratings on the grid.

    ``score`` is the log likelihood of its loudest rows; ``margin`` by how much it beats
    the best of candidates that tell other ratings.
    """

    first: Tensor  # (clients,)
    second: Tensor  # (clients,)
    score: Tensor  # (clients,)
    margin: Tensor  # (clients,)

    def at(self, lines: Lines, sender: Tensor) -> Tensor:
        """Each row's rating, (rows,)."""
        return lines.first * self.first[sender] + lines.second * self.second[sender]


def fitted(
    lines: Lines, sender: Tensor, noise: Tensor, grid: Grid, two: bool = True
) -> Fit:
    """The factors that fit best; ``two`` free ones where one length explains less.

    ``noise`` is the deviation of ``first``, (clients,).
    """
    loud = _loudest(lines, sender, noise)
    tied = _best(loud, grid, _by_length)
    tied = _refined(tied, lines, sender, grid, _on_length)
    if not two:
        return tied
    free = _refined(_best(loud, grid, _by_pairs), lines, sender, grid, _on_both)
    better = loud.likelihood(free, grid) > loud.likelihood(tied, grid) + _FREEDOM
    names = [field.name for field in fields(Fit)]
    return Fit(
        *(torch.where(better, getattr(free, n), getattr(tied, n)) for n in names)
    )


@dataclass(frozen=True, eq=False)
class _Loud:
    """The loudest rows of some clients, (clients, rows) each."""

    first: Tensor
    second: Tensor
    real: Tensor
    noise: Tensor  # (clients,)

    def of(self, clients: Tensor) -> "_Loud":
        parts = (self.first, self.second, self.real, self.noise)
        return _Loud(*(part[clients] for part in parts))

    def likelihood(self, fit: Fit, grid: Grid) -> Tensor:
        """Log likelihood of each client's rows under its factors, (clients,)."""
        return self.weighed(fit.first[:, None], fit.second[:, None], grid)[:, 0]

    def weighed(self, first: Tensor, second: Tensor, grid: Grid) -> Tensor:
        """The same for many factors, (clients, candidates).

        A row is a rating on the grid under noise, or one in ten times anything. The
        deviation is the most likely one of a few, none less than the noise: the model
        is not exact either.
        """
        rating = self.first[..., None] * first[:, None]
        rating = rating + self.second[..., None] * second[:, None]
        near = grid.nearest(rating)
        factor = first.abs()[:, None]
        gap = (rating - near) / factor
        often = grid.praise(near) * (0.9 / (2 * torch.pi) ** 0.5)
        other = 0.1 * factor / (grid.high - grid.low)
        loudest = self.first.abs().amax(1)
        found = torch.full_like(first, -torch.inf)
        for share in _SHARES:
            deviation = torch.maximum(self.noise, loudest * share)
            deviation = deviation.clamp_min(_TINY)[:, None, None]
            told = (gap / deviation).square().mul(-0.5).exp() * often / deviation
            total = ((told + other).log() * self.real[..., None]).sum(1)
            found = torch.maximum(found, total.nan_to_num(nan=-torch.inf))
        return found


Candidates = Callable[[_Loud, Grid], tuple[Tensor, Tensor]]


def _best(loud: _Loud, grid: Grid, candidates: Candidates) -> Fit:
    """The candidate that explains each client's loudest rows best."""
    points = len(grid.points(loud.first))
    many = max(2 * _PIVOTS * points, _PAIRS * points**2)
    clients = torch.arange(len(loud.noise), device=loud.noise.device)
    chunks = torch.split(clients, max(1, _CELLS // (_LOUDEST * many)))
    parts = [_chosen(loud.of(at), grid, candidates) for at in chunks]
    return Fit(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _loudest(lines: Lines, sender: Tensor, noise: Tensor) -> _Loud:
    order = lines.first.abs().argsort(descending=True, stable=True)
    order = order[sender[order].argsort(stable=True)]
    counts = torch.bincount(sender, minlength=len(noise))
    first = counts.cumsum(0) - counts
    rank = torch.arange(_LOUDEST, device=sender.device)
    real = rank < counts[:, None]
    at = torch.where(real, first[:, None] + rank, 0)
    if not len(order):
        nothing = torch.zeros(at.shape, dtype=noise.dtype, device=noise.device)
        return _Loud(nothing, nothing, real, noise)
    at = order[at]
    return _Loud(lines.first[at] * real, lines.second[at] * real, real, noise)


def _by_length(loud: _Loud, grid: Grid) -> tuple[Tensor, Tensor]:
    """Factors 1 / s and s for every s that puts a loud row on a rating."""
    first, second = (part[:, :_PIVOTS, None] for part in (loud.first, loud.second))
    rating = grid.points(loud.first)
    inside = rating.square() - 4 * first * second
    # The smaller root by the product of both, so that second may be next to nothing.
    large = (rating + inside.clamp_min(0).sqrt()) / 2
    s = torch.stack([first / large, large / second], dim=-1)
    usable = (inside >= 0)[..., None] & s.isfinite() & (s != 0)
    s = torch.where(usable, s, torch.nan).flatten(1)
    return 1 / s, s


def _by_pairs(loud: _Loud, grid: Grid) -> tuple[Tensor, Tensor]:
    """Factors that put two loud rows on two ratings, both of one sign."""
    few = min(8, loud.first.shape[1])
    one, two = torch.triu_indices(few, few, 1, device=loud.first.device)
    f, t = loud.first[:, :few], loud.second[:, :few]
    apart = f[:, one] * t[:, two] - f[:, two] * t[:, one]
    picked = apart.abs().topk(_PAIRS, dim=1).indices
    one, two = one[picked], two[picked]  # (clients, pairs)
    points = grid.points(f)
    a, b = (part.flatten() for part in torch.meshgrid(points, points, indexing="ij"))
    apart = apart.gather(1, picked)[..., None]
    f1, f2, t1, t2 = (v.gather(1, at)[..., None] for v in (f, t) for at in (one, two))
    first = ((a * t2 - b * t1) / apart).flatten(1)
    second = ((f1 * b - f2 * a) / apart).flatten(1)
    usable = first.isfinite() & second.isfinite() & (first * second > 0)
    return first.where(usable, torch.nan), second.where(usable, torch.nan)


def _chosen(
    loud: _Loud, grid: Grid, candidates: Candidates
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    first, second = candidates(loud, grid)  # (clients, candidates)
    usable = first.isfinite() & second.isfinite() & (first != 0)
    first, second = (torch.where(usable, part, 1.0) for part in (first, second))
    told = loud.weighed(first, second, grid).masked_fill(~usable, -torch.inf)
    score, at = told.max(1)
    best = [part.gather(1, at[:, None]) for part in (first, second)]
    same = ((first - best[0]) / best[0]).abs() < _DISTINCT
    others = told.masked_fill(same, -torch.inf).amax(1)
    margin = (score - others).nan_to_num(nan=0.0)
    return best[0][:, 0], best[1][:, 0], score, margin


def _refined(fit: Fit, lines: Lines, sender: Tensor, grid: Grid, step: "Step") -> Fit:
    """Least squares onto the grid over all rows near it, so that noise averages out."""
    clients = len(fit.first)
    for _ in range(_STEPS):
        rating = fit.at(lines, sender)
        rest = grid.nearest(rating) - rating
        near = (rest.abs() < 0.3 * grid.step) & grid.holds(rating, sender, clients)
        near = near.double()
        fit = step(fit, lines, sender, rest * near, near)
    return fit


Step = Callable[[Fit, Lines, Tensor, Tensor, Tensor], Fit]


def _on_length(
    fit: Fit, lines: Lines, sender: Tensor, rest: Tensor, near: Tensor
) -> Fit:
    """Both factors stay those of one length, s and 1 / s."""
    slope = lines.second - lines.first * fit.first.square()[sender]
    clients = len(fit.first)
    up = by_sender(slope * rest, sender, clients)
    down = by_sender(near * slope.square(), sender, clients)
    s = fit.second + up / down.clamp_min(_TINY)
    s = torch.where(s * fit.second > 0, s, fit.second)
    return replace(fit, first=1 / s, second=s)


def _on_both(fit: Fit, lines: Lines, sender: Tensor, rest: Tensor, near: Tensor) -> Fit:
    f, t = lines.first * near, lines.second * near
    ff, ft, tt, fr, tr = (
        by_sender(one * two, sender, len(fit.first))
        for one, two in ((f, f), (f, t), (t, t), (f, rest), (t, rest))
    )
    apart = ff * tt - ft.square()
    apart = torch.where(apart > 1e-9 * ff * tt, apart, torch.inf)
    return replace(
        fit,
        first=fit.first + (tt * fr - ft * tr) / apart,
        second=fit.second + (ff * tr - ft * fr) / apart,
    )
