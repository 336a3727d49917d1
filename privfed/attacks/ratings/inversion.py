"""Ratings by optimization: DLG and Inverting Gradients on federated factorization.

Zhu et al., Deep Leakage from Gradients, NeurIPS 2019 (``l2``, L-BFGS); Geiping et al.,
Inverting Gradients, NeurIPS 2020 (``cosine``, Adam on the gradient's signs). The
unknowns are a client's vector and its ratings, and what is differentiated is all of
local training, over the client's first uploads one after the other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from privfed.adversary import Attack, Prior
from privfed.attacks.reading import records
from privfed.attacks.reading.descent import Found, Objective, adam, lbfgs
from privfed.attacks.reading.grid import Grid
from privfed.attacks.reading.simulation import Distance, best_of
from privfed.checks import at_least, not_negative, positive
from privfed.data.world import Shape
from privfed.guesses import Ratings
from privfed.interfaces import Method, State
from privfed.surfaces import InnerProduct, Replayable
from privfed.views import ModelView, UploadsView, View

_CELLS = 2**15  # samples of victims that are attacked at once
_ENOUGH = 1e-13  # of an upload's squared length: what its rounding leaves
Optimizer = Literal["lbfgs", "adam", "signed"]


@dataclass(frozen=True)
class Inversion(Attack):
    """Ratings by repeating local training until it gives what was uploaded.

    Attacks ``victims`` clients, drawn among those seen, by their first ``uploads``
    uploads: one does not fix a vector's length. Each is tried from ``tries`` starts
    that the public algorithm might have drawn, and the best kept; nothing is claimed of
    a client of whose uploads more than ``unexplained`` stays unexplained. ``rate`` is
    Adam's; rounds before ``after`` are passed over. Ratings are rounded to the grid.
    """

    victims: int = 64
    uploads: int = 2
    tries: int = 2
    iterations: int = 300
    distance: Distance = "l2"
    optimizer: Optimizer = "lbfgs"
    rate: float = 0.05
    unexplained: float = 0.5
    after: int = 0

    sees = (UploadsView, ModelView)
    tasks = ("rating",)
    recovers = "ratings"
    paper = "Zhu et al., NeurIPS 2019; Geiping et al., NeurIPS 2020"

    def __post_init__(self) -> None:
        not_negative(self, "after")
        at_least(self, 1, "victims", "uploads", "tries", "iterations")
        positive(self, "rate", "unexplained")

    def misfit(self, method: Method) -> str:
        if isinstance(method, (InnerProduct, Replayable)):
            return ""
        return "cannot repeat this method's local training"

    def start(self, prior: Prior) -> State:
        return records.begin(prior)

    def observe(self, memory: State, view: View) -> State:
        if view.round < self.after:
            return memory
        return records.observed(memory, view, self.victims, self.uploads)

    def guess(self, memory: State, prior: Prior) -> Ratings:
        parts = list(self._claims(records.victims(memory), prior))
        client = torch.cat([client for client, _, _ in parts] or [_none()])
        item = torch.cat([item for _, item, _ in parts] or [_none()])
        rating = torch.cat([rating for _, _, rating in parts] or [_none().double()])
        order = (client * prior.items + item).argsort()
        clients, sender = torch.unique(client[order], return_inverse=True)
        return Ratings(clients, sender, item[order], rating[order])

    def _claims(
        self, who: records.Victims, prior: Prior
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Client, item and rating, for some victims at a time."""
        for group in who.groups(_CELLS):
            rating, left = self.recovered(group, prior)
            sure = (left <= self.unexplained)[:, None]
            victim, at = (group.real & sure & rating.isfinite()).nonzero(as_tuple=True)
            value = possible(rating[victim, at], prior.shape)
            yield group.clients[victim], group.item[victim, at], value

    def recovered(self, who: records.Victims, prior: Prior) -> tuple[Tensor, Tensor]:
        """Ratings (victims, samples), and what stays unexplained (victims,)."""
        low, high = prior.shape.scale or (0.0, 1.0)
        start = torch.full(who.item.shape, (low + high) / 2, dtype=torch.float64)
        return best_of(
            prior, who, self.tries, start, _same, self.distance, self._minimized
        )

    def _minimized(self, objective: Objective, start: Tensor) -> Found:
        if self.optimizer == "lbfgs":
            return lbfgs(objective, start, self.iterations, enough=_ENOUGH)
        signed = self.optimizer == "signed"
        return adam(objective, start, self.iterations, self.rate, signed)


def possible(rating: Tensor, shape: Shape) -> Tensor:
    """The possible rating next to each, as far as the scale is known."""
    if shape.scale is None:
        return rating
    if shape.step > 0:
        return Grid(*shape.scale, shape.step).nearest(rating)
    return rating.clamp(*shape.scale)


def _same(numbers: Tensor) -> Tensor:
    return numbers


def _none() -> Tensor:
    return torch.zeros(0, dtype=torch.int64)
