"""Ratings from one upload, where they are known to lie on a grid.

An upload tells a client's ratings but for one number, the length of its vector. Only
the right one puts all of them on the grid at once, so a single upload is enough.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from privfed.adversary import Attack, Prior
from privfed.attacks.ratings.products import OfProducts
from privfed.attacks.ratings.real import (
    EXACT,
    Public,
    add,
    empty,
    received,
    settle,
    told_by,
)
from privfed.attacks.reading import rank_one
from privfed.attacks.reading.grid import Fit, fitted
from privfed.attacks.reading.in_turn import turning
from privfed.attacks.reading.rank_one import Told
from privfed.interfaces import State
from privfed.views import ServerView, UploadsView, View

_CLEAR_CUT = 5.0  # log likelihood by which the right ratings should beat all others


@dataclass(frozen=True)
class RatingGrid(OfProducts):
    """Rating recovery from a single upload, by the grid that ratings lie on.

    The length of the user vector is the one that puts a client's ratings on the grid;
    under a defense or several local steps an unknown factor, as clipping leaves, is
    found with it. Both are refined by least squares onto the grid, over all rows, so
    that noise averages out; over rounds what uploads tell is averaged. Where a client
    sends every row, only those that stand ``deviations`` out of the noise are taken
    for rated. Ratings are rounded to the grid; without one nothing is claimed.
    """

    paper = "this project; what two uploads tell: Chai et al., IEEE Int. Systems 2020"

    def start(self, prior: Prior) -> State:
        return empty(prior)

    def prepare(self, prior: Prior) -> Attack:
        return _Ready(self.deviations, public=Public.of(prior))


@dataclass(frozen=True)
class _Ready(RatingGrid):
    """The attack on methods and scales that are known."""

    public: Public = field(kw_only=True)

    def observe(self, memory: State, view: View) -> State:
        if isinstance(view, ServerView):
            return received(memory, view, self.public)
        assert isinstance(view, UploadsView)
        clients, grid = view.uploads.clients, self.public.grid
        memory["seen"][clients] = True
        if grid is None:
            return memory
        told = told_by(memory, view, self.public, self.deviations)
        how, public = self.public.method.pass_(view.round), self.public
        if how.moves == "each":
            found = turning(told, how, public.span + 1)
            settle(memory, clients, found.chained, public)
            told, lines, free = found.told, found.lines(), public.defended
        else:
            lines, free = rank_one.lines(told, how), public.defended or how.steps > 1
        fit = fitted(lines, told.sender, told.noise, grid, free)
        rating, known = fit.at(lines, told.sender), self._weight(fit, told)[told.sender]
        if how.moves == "each":
            sure = found.chained[told.sender]
            rating = torch.where(sure, found.rating(), rating)
            known = torch.where(sure, 1 / EXACT**2, known)
        pairs = told.sender, told.item
        return add(memory, clients, pairs, rating, known, public)

    def _weight(self, fit: Fit, told: Told) -> Tensor:
        """One over the variance of a client's ratings, (clients,)."""
        s = 1 / fit.first.abs()
        known = self.public.weight(told.noise, s, torch.zeros_like(s))
        known = known * (fit.margin / _CLEAR_CUT).clamp(0.01, 1)
        rows = told.sum(torch.ones_like(told.along))
        return torch.where(told.clear & (rows > 1), known, 0.0)
