"""How well candidates that are interactions are told from those that are not.

Candidates of all clients are ranked together, as Carlini et al. (Membership Inference
Attacks From First Principles, S&P 2022) rank records: a curve is read where few are
falsely accused, and a mean over clients would hide who is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from privfed.adversary import NotApplicable, Prior
from privfed.data.world import Ragged
from privfed.guesses import Interactions
from privfed.metrics.leakage.judged import Judged, Measure, Pooled, Truth
from privfed.metrics.score import Score, mean_of

_RATES = {"1e-3": 1e-3, "1e-2": 1e-2}  # of false accusations


def judge(guess: Interactions, truth: Truth, prior: Prior) -> Judged | NotApplicable:
    """Figures of a claim, beside those of the items' popularity as the score.

    ``auc``, ``tpr@fpr_*`` (the share of interactions found where so many others are
    accused, a tie counting as accused) and ``balanced_accuracy`` (at the best
    threshold) rank all candidates together; ``auc_by_client`` is a mean over clients
    of each one's own ranking; ``coverage`` is the share of a client's interactions
    that are candidates. Raises ArithmeticError where a score is not finite.
    """
    if not bool(guess.score.isfinite().all()):
        raise ArithmeticError("an attack's score is not finite")
    train = truth.world.train
    real = _real(guess, train, prior.items)
    if bool(real.all()) or not bool(real.any()):
        return NotApplicable("every candidate is alike: all interactions, or none")
    common = truth.world.popularity[guess.item].double()
    blind = replace(guess, score=common)
    scores = _measures(guess, real)
    found = torch.zeros(len(guess.clients)).index_add_(0, guess.sender, real.float())
    scores["coverage"] = mean_of(found.double() / train.counts[guess.clients])
    return Judged(scores, _measures(blind, real), "auc")


def _real(guess: Interactions, train: Ragged, items: int) -> Tensor:
    """Which candidates are interactions, (pairs,) bool."""
    own = train.owner * items + train.item
    return torch.isin(guess.clients[guess.sender] * items + guess.item, own)


def _measures(guess: Interactions, real: Tensor) -> dict[str, Measure]:
    clients = len(guess.clients)
    ranked = Ranked.of(guess, real)
    pooled: Mapping[str, Pooled] = {
        "auc": Pooled(clients, ranked.area),
        **{
            f"tpr@fpr_{told}": Pooled(clients, partial(ranked.found, rate))
            for told, rate in _RATES.items()
        },
        "balanced_accuracy": Pooled(clients, ranked.accuracy),
    }
    return {**pooled, "auc_by_client": _each(guess, real)}


@dataclass(frozen=True, eq=False)
class Ranked:
    """Candidates from the highest score down, and figures of some clients' ones.

    Clients are given by position and may repeat. A figure is NaN where those clients
    have no interaction among their candidates, or nothing else.
    """

    clients: int
    sender: Tensor  # (pairs,)
    real: Tensor  # (pairs,) bool
    last: Tensor  # (levels,) place of the last pair of each score

    @classmethod
    def of(cls, guess: Interactions, real: Tensor) -> "Ranked":
        score, order = guess.score.sort(descending=True)
        ends = torch.ones(len(score), dtype=torch.bool)
        ends[:-1] = score.diff() != 0
        last = ends.nonzero()[:, 0]
        return cls(len(guess.clients), guess.sender[order], real[order], last)

    def curve(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """False and true positive rate down to each score, from 0: (levels + 1,)."""
        weight = torch.bincount(at, minlength=self.clients).double()[self.sender]
        yes = weight.where(self.real, 0.0).cumsum(0)
        no = weight.cumsum(0) - yes
        false, true = (
            torch.cat([part.new_zeros(1), part[self.last]]) / part[-1]
            for part in (no, yes)
        )
        return false, true

    def area(self, at: Tensor) -> float:
        """The chance that an interaction outranks another candidate, ties half."""
        false, true = self.curve(at)
        return float(torch.trapezoid(true, false))

    def found(self, rate: float, at: Tensor) -> float:
        """The share of interactions above a score that ``rate`` of the rest reach."""
        false, true = self.curve(at)
        if not bool(false[-1] > 0):
            return torch.nan
        return float(true[false <= rate].amax())

    def accuracy(self, at: Tensor) -> float:
        """The mean of both kinds' accuracy at the best threshold."""
        false, true = self.curve(at)
        return float((1 + true - false).amax() / 2)


def _each(guess: Interactions, real: Tensor) -> Score:
    """Each client's own AUC; a client with one kind of candidate does not count."""
    order = guess.score.argsort(stable=True)
    order = order[guess.sender[order].argsort(stable=True)]
    sender, score, yes = guess.sender[order], guess.score[order], real[order].double()
    rank = torch.arange(len(order), dtype=torch.float64)
    fresh = torch.ones(len(order), dtype=torch.bool)
    fresh[1:] = (score.diff() != 0) | (sender.diff() != 0)
    level = fresh.cumsum(0) - 1
    count = torch.bincount(level).double()
    rank = (torch.zeros_like(count).index_add_(0, level, rank) / count)[level]

    def by_client(value: Tensor) -> Tensor:
        return value.new_zeros(len(guess.clients)).index_add_(0, sender, value)

    all_, ours = by_client(torch.ones_like(yes)), by_client(yes)
    first = (all_.cumsum(0) - all_)[sender]
    above = by_client((rank - first) * yes) - ours * (ours - 1) / 2
    return mean_of(above / (ours * (all_ - ours)))
