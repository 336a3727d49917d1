"""How well it was told who took part in training."""

import numpy as np
import torch
from torch import Tensor

from privfed.adversary import NotApplicable, Prior
from privfed.guesses import Users
from privfed.metrics.leakage.judged import Judged, Pooled, Truth


def judge(guess: Users, truth: Truth, prior: Prior) -> Judged | NotApplicable:
    """Figures over all candidates together.

    ``auc`` is the chance that one who took part is scored above one who did not;
    ``tpr@fpr_1e-2`` and ``tpr@fpr_1e-3`` are the share of those who took part that is
    found while at most 1 % or 0.1 % of the others are taken for them. The floor scores
    candidates by the length of their profile. Raises ArithmeticError where a score is
    not finite.
    """
    if not bool(guess.score.isfinite().all()):
        raise ArithmeticError("an attack's score is not finite")
    inside = truth.took_part.cpu()[guess.clients]
    if bool(inside.all()) or not bool(inside.any()):
        return NotApplicable(
            "who took part cannot be told where all candidates did or none; take "
            "--sampling uniform with few clients a round"
        )
    blind = torch.zeros(len(inside), dtype=torch.float64)
    if prior.profiles is not None:
        blind = prior.profiles.counts.cpu()[guess.clients].double()
    return Judged(_pooled(guess.score.double(), inside), _pooled(blind, inside), "auc")


def _pooled(score: Tensor, inside: Tensor) -> dict[str, Pooled]:
    clients = len(inside)
    return {
        "auc": Pooled(clients, lambda at: auc(score[at], inside[at])),
        "tpr@fpr_1e-2": Pooled(clients, lambda at: tpr(score[at], inside[at], 0.01)),
        "tpr@fpr_1e-3": Pooled(clients, lambda at: tpr(score[at], inside[at], 0.001)),
    }


def auc(score: Tensor, inside: Tensor) -> float:
    """Area under the ROC curve; NaN where there is one class only."""
    from scipy import stats

    yes, no = int(inside.sum()), int((~inside).sum())
    if not yes or not no:
        return float("nan")
    rank = stats.rankdata(np.asarray(score))[np.asarray(inside)].sum()
    return float((rank - yes * (yes + 1) / 2) / (yes * no))


def tpr(score: Tensor, inside: Tensor, fpr: float) -> float:
    """The largest share of the true found at that rate of false ones, at most."""
    others = score[~inside].sort(descending=True).values
    if not len(others) or not bool(inside.any()):
        return float("nan")
    allowed = int(fpr * len(others) + 1e-9)
    above = score[inside] > others[allowed]  # so that as many others lie above it
    return float(above.double().mean())
