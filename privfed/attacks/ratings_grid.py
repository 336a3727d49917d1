"""Ratings from one upload, where they are known to lie on a grid.

An upload tells a client's ratings but for one number, the length of its vector. Only
the right one puts all of them on the grid at once, so a single upload is enough.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.adversary import Attack, Prior
from privfed.attacks import rank_one
from privfed.attacks.grid import fitted
from privfed.attacks.in_turn import turning
from privfed.attacks.rank_one import Lines, Told
from privfed.attacks.ratings_real import (
    add,
    claims,
    empty,
    grid_of,
    open_questions,
    pass_of,
    settle,
)
from privfed.attacks.ratings_two_rounds import (
    EXACT,
    largest,
    misfit,
    received,
    weight,
)
from privfed.checks import positive
from privfed.guesses import Ratings
from privfed.interfaces import Method, Pass, State
from privfed.views import ServerView, UploadsView, View

_CLEAR_CUT = 5.0  # log likelihood by which the right ratings should beat all others


@dataclass(frozen=True)
class RatingGrid(Attack):
    """Rating recovery from a single upload, by the grid that ratings lie on.

    The length of the user vector is the one that puts a client's ratings on the grid;
    under a defense or several local steps an unknown factor, as clipping leaves, is
    found with it. Both are refined by least squares onto the grid, over all rows, so
    that noise averages out; over rounds what uploads tell is averaged. Where a client
    sends every row, only those that stand ``deviations`` out of the noise are taken
    for rated. Ratings are rounded to the grid; without one nothing is claimed.
    """

    deviations: float = 3.0

    sees = (UploadsView, ServerView)
    tasks = ("rating",)
    recovers = "ratings"
    paper = "this project; what two uploads tell: Chai et al., IEEE Int. Systems 2020"

    def __post_init__(self) -> None:
        positive(self, "deviations")

    def misfit(self, method: Method) -> str:
        return misfit(method)

    def start(self, prior: Prior) -> State:
        return empty(prior)

    def observe(self, memory: State, view: View) -> State:
        if isinstance(view, ServerView):
            return received(memory, view)
        assert isinstance(view, UploadsView)
        how, up = pass_of(memory, view.round), view.uploads
        clients = up.clients
        memory["seen"][clients] = True
        if not grid_of(memory).step:
            return memory
        told = rank_one.read(
            up.rows[how.table],
            len(clients),
            memory["table"],
            how,
            up.scale[how.table],
            self.deviations,
        )
        if how.moves == "each":
            return _each(memory, clients, told, how)
        free = bool(memory["defended"]) or how.steps > 1
        rating, known = _gridded(memory, told, rank_one.lines(told, how), free)
        pairs = told.sender, told.item
        return add(memory, clients, pairs, rating, known[told.sender])

    def guess(self, memory: State, prior: Prior) -> Ratings:
        return claims(memory, prior)


def _gridded(
    memory: State, told: Told, lines: Lines, free: bool
) -> tuple[Tensor, Tensor]:
    """Ratings by the grid, (rows,), and one over their variance, (clients,)."""
    fit = fitted(lines, told.sender, told.noise, grid_of(memory), free)
    s = 1 / fit.first.abs()
    known = weight(told.noise, s, torch.zeros_like(s), memory)
    known = known * (fit.margin / _CLEAR_CUT).clamp(0.01, 1)
    rows = told.sum(torch.ones_like(told.along))
    known = torch.where(told.clear & (rows > 1), known, 0.0)
    return fit.at(lines, told.sender), known


def _each(memory: State, clients: Tensor, told: Told, how: Pass) -> dict[str, Tensor]:
    """Rows that make a chain tell all; the grid does for others."""
    found = turning(open_questions(memory, clients, told), how, largest(memory))
    settle(memory, clients, found.chained)
    told = found.told
    free = bool(memory["defended"])
    rating, known = _gridded(memory, told, found.lines(), free)
    sure = found.chained[told.sender]
    rating = torch.where(sure, found.rating(), rating)
    known = torch.where(sure, 1 / EXACT**2, known[told.sender])
    return add(memory, clients, (told.sender, told.item), rating, known)
