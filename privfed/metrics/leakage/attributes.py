"""How well attributes of users were told."""

import torch
from torch import Tensor

from privfed.adversary import NotApplicable, Prior
from privfed.data.attributes import UNKNOWN, Labels
from privfed.guesses import Attributes
from privfed.metrics.leakage.judged import Judged, Measure, Pooled, Truth
from privfed.metrics.leakage.users import auc
from privfed.metrics.score import Score, mean_of


def judge(guess: Attributes, truth: Truth, _: Prior) -> Judged | NotApplicable:
    """Accuracy by attribute, and the AUC of those that have two values.

    ``<attribute>_accuracy`` is the share of users whose likeliest value is the true
    one, which is micro-F1; ``accuracy`` is its mean over the attributes that are known
    of a user. The floor names the commonest value for everybody. ``<attribute>_auc`` is
    the chance that of two users with different values the right one is scored higher.
    Raises ArithmeticError where a score is not finite.
    """
    known = truth.world.attributes
    told = {n: s.cpu() for n, s in guess.scores.items() if n in known}
    if not all(bool(score.isfinite().all()) for score in told.values()):
        raise ArithmeticError("an attack's score is not finite")
    clients = guess.clients.cpu()
    common = {n: _commonest(known[n], clients) for n in told}
    if not told or all(score.isnan().all() for score in common.values()):
        return NotApplicable("no attribute of any of these users is known")
    right = {n: _right(told[n].argmax(1), known[n], clients) for n in told}
    scores: dict[str, Measure] = dict(_accuracies(right))
    floor: dict[str, Measure] = dict(_accuracies(common))
    for name, score in told.items():
        if score.shape[1] == 2:
            labels = known[name].label[clients]
            scores[f"{name}_auc"] = _pooled(score[:, 1] - score[:, 0], labels)
            floor[f"{name}_auc"] = _pooled(torch.zeros(len(labels)), labels)
    return Judged(scores, floor, "accuracy")


def _accuracies(right: dict[str, Tensor]) -> dict[str, Score]:
    """Means over clients, of each attribute and of all."""
    found = {f"{name}_accuracy": mean_of(values) for name, values in right.items()}
    every = torch.stack([*right.values()])
    return {"accuracy": mean_of(every.nanmean(0)), **found}


def _right(claimed: Tensor, labels: Labels, clients: Tensor) -> Tensor:
    """1 where the class is right, 0 where not, NaN where nobody knows: (seen,)."""
    label = labels.label.cpu()[clients]
    right = (claimed == label).double()
    return right.masked_fill(label == UNKNOWN, torch.nan)


def _commonest(labels: Labels, clients: Tensor) -> Tensor:
    """The same for a claim of the commonest class of all."""
    label = labels.label.cpu()
    count = torch.bincount(label[label != UNKNOWN], minlength=len(labels.names))
    return _right(count.argmax().expand(len(clients)), labels, clients)


def _pooled(score: Tensor, label: Tensor) -> Pooled:
    known = label != UNKNOWN
    score, label = score[known].double(), label[known] == 1
    return Pooled(len(score), lambda at: auc(score[at], label[at]))
