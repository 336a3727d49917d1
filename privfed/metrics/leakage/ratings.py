"""How many of the ratings that clients trained on were recovered."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from privfed.adversary import Prior
from privfed.data.world import Pairs
from privfed.guesses import Ratings
from privfed.metrics.leakage.judged import Judged, Truth
from privfed.metrics.score import Score, mean_of

LEAD = "exact"
_SAME = 1e-3  # two ratings that differ by less are equal


def judge(guess: Ratings, truth: Truth, prior: Prior) -> Judged:
    """Figures over the training ratings of the clients that the attack saw.

    ``exact`` and ``within_half_star`` are shares of all of them, where a rating of
    which nothing is claimed is missed; ``users_exact`` is the share of clients without
    a miss, ``coverage`` that of ratings of which something is claimed. ``precision`` is
    the share of a client's claims that are of items that it rated, 0 where it has none.
    ``rmse`` and ``mae`` take an unclaimed rating to be guessed as the floor guesses it.

    The floor is given every rated item, and guesses one rating for all: the one that is
    best over all training ratings by that measure: the most common one, the one that
    most lie within half a star of, the mean, the median. Raises ArithmeticError where
    a rating is not finite.
    """
    if not bool(guess.rating.isfinite().all()):
        raise ArithmeticError("a rating that an attack claims is not finite")
    facts = truth.world.train.of(guess.clients)
    claimed, rating = _looked_up(guess, facts, prior.items)
    label = facts.label.double()
    every = truth.world.train.label.double()
    given = torch.ones_like(claimed)

    def of(told: Tensor, given: Tensor, blank: float) -> _Compared:
        counts = torch.bincount(facts.sender, minlength=len(guess.clients))
        away = torch.where(given, told, blank) - label
        return _Compared(facts.sender, counts, away.abs(), given)

    def constant(value: float) -> _Compared:
        return of(label, ~given, value).all_given()

    mean, median = float(every.mean()), float(every.median())
    floor = {
        "exact": constant(_common(every, 0.0)).within(_SAME),
        "users_exact": constant(_common(every, 0.0)).users(_SAME),
        "within_half_star": constant(_common(every, 0.5)).within(0.5 + _SAME),
        "rmse": constant(mean).rmse(),
        "mae": constant(median).mae(),
    }
    ours = {
        "exact": of(rating, claimed, mean).within(_SAME),
        "users_exact": of(rating, claimed, mean).users(_SAME),
        "within_half_star": of(rating, claimed, mean).within(0.5 + _SAME),
        "rmse": of(rating, claimed, mean).rmse(),
        "mae": of(rating, claimed, median).mae(),
        "coverage": of(rating, claimed, mean).within(torch.inf),
        "precision": mean_of(_precision(guess, facts, claimed)),
    }
    return Judged(ours, floor, LEAD)


@dataclass(frozen=True, eq=False)
class _Compared:
    """What is told of each fact, and how far it is off."""

    sender: Tensor  # (facts,)
    counts: Tensor  # (clients,)
    away: Tensor  # (facts,)
    given: Tensor  # (facts,) bool: something is told

    def all_given(self) -> "_Compared":
        return replace(self, given=torch.ones_like(self.given))

    def _over(self, value: Tensor, root: bool = False) -> Score:
        total = torch.zeros(len(self.counts), dtype=torch.float64)
        total.index_add_(0, self.sender, value.double())
        some = self.counts > 0
        return Score(total[some], self.counts[some], root)

    def within(self, most: float) -> Score:
        return self._over(self.given & (self.away <= most))

    def users(self, most: float) -> Score:
        return mean_of((self.within(most).each == 1).double())

    def rmse(self) -> Score:
        return self._over(self.away.square(), root=True)

    def mae(self) -> Score:
        return self._over(self.away)


def _looked_up(guess: Ratings, facts: Pairs, items: int) -> tuple[Tensor, Tensor]:
    """Whether a rating of each fact is claimed, and which: (facts,) each."""
    key, order = (guess.sender * items + guess.item).sort()
    if not len(key):
        none = torch.zeros_like(facts.item, dtype=torch.bool)
        return none, none.double()
    wanted = facts.sender * items + facts.item
    at = torch.searchsorted(key, wanted).clamp_max(len(key) - 1)
    return key[at] == wanted, guess.rating.double()[order[at]]


def _precision(guess: Ratings, facts: Pairs, claimed: Tensor) -> Tensor:
    """Share of each client's claims that are of items that it rated, (clients,)."""
    clients = len(guess.clients)
    claims = torch.bincount(guess.sender, minlength=clients).double()
    hits = torch.bincount(facts.sender[claimed], minlength=clients).double()
    rated = torch.bincount(facts.sender, minlength=clients) > 0
    return torch.where(rated, hits / claims.clamp_min(1), torch.nan)


def _common(ratings: Tensor, most: float) -> float:
    """The rating that most others lie within ``most`` of."""
    values, counts = torch.unique(ratings, return_counts=True)
    near = (values[:, None] - values[None]).abs() <= most + _SAME
    return float(values[(near * counts).sum(1).argmax()])
