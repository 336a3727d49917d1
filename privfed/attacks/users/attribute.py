"""Attributes of users from what other attacks recover of them.

Zhang, Yuan and Yin, TKDE 2023, infer attributes from what a federated recommender
uploads. Here a classifier is trained on users whose attributes are known, as those
are who state them, and reads what another attack recovered: their items, or vectors.
"""

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from privfed.adversary import Attack, Knowledge, Prior
from privfed.attacks.items.sign_pc import SignPC
from privfed.attacks.items.support import Support
from privfed.attacks.ratings.two_rounds import RatingTwoRounds
from privfed.attacks.users.user_vector import UserVector
from privfed.checks import positive
from privfed.data.attributes import UNKNOWN, Labels
from privfed.guesses import Attributes, Guess, Items, Ratings, Vectors
from privfed.interfaces import Method, State
from privfed.views import ModelView, ServerView, UploadsView, View

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_STEPS = 1_000
_NEVER = 1e-12  # the chance of a class that nobody known has


@dataclass(frozen=True)
class Attribute(Attack):
    """Gender, age and occupation of users, from what their uploads give away.

    ``source="items"`` reads the interacted items that ``sign_pc`` recovers, or
    ``support`` where a method has no sampled negatives; ``vector`` the vectors of
    ``user_vector``; ``ratings`` the items and ratings of ``rating_two_rounds``. A
    logistic regression on rows of length one, with an L2 penalty of weight 1 /
    ``fit``, learns from users whose attributes are known and tells those of the
    others.
    """

    source: Literal["items", "vector", "ratings"] = "items"
    fit: float = 1.0

    sees = (ModelView, ServerView, UploadsView)
    knows = Knowledge(popularity=True, attributes=True)
    recovers = "attributes of users"
    tasks = ("ranking", "rating")
    paper = "Zhang et al., TKDE 2023"

    def __post_init__(self) -> None:
        positive(self, "fit")

    def misfit(self, method: Method) -> str:
        return self._inner(method).misfit(method)

    def _inner(self, method: Method) -> Attack:
        """The attack whose claims are read."""
        if self.source == "vector":
            return UserVector()
        if self.source == "ratings":
            return RatingTwoRounds()
        return SignPC() if method.task == "ranking" else Support()

    def inner(self, prior: Prior) -> Attack:
        """The same, prepared."""
        return self._inner(prior.method).prepare(prior)

    def prepare(self, prior: Prior) -> Attack:
        return ReadyAttribute(self.source, self.fit, self.inner(prior))

    def start(self, prior: Prior) -> State:
        return self.inner(prior).start(prior)

    def observe(self, memory: State, view: View) -> State:
        raise TypeError("this attack reads what another recovers: prepare it first")

    def guess(self, memory: State, prior: Prior) -> Attributes:
        found = self.inner(prior).guess(memory, prior)
        table = told(found, prior.items)
        scores = {
            name: classified(table, labels, found.clients, self.fit)
            for name, labels in prior.attributes.items()
        }
        return Attributes(found.clients, scores)


@dataclass(frozen=True)
class ReadyAttribute(Attribute):
    """The attack with the one that it reads; made by ``Attribute.prepare``."""

    reads: Attack | None = None

    def observe(self, memory: State, view: View) -> State:
        assert self.reads is not None
        if isinstance(view, self.reads.sees):
            return self.reads.observe(memory, view)
        return memory


def told(guess: Guess, items: int) -> Tensor:
    """What a claim says of each client, as rows of length one: (seen, width).

    Of ratings: which items, and beside them by how much each is above the client's
    mean, in deviations of them all.
    """
    if isinstance(guess, Items):
        value = guess.chosen.double()
    elif isinstance(guess, Ratings):
        value = _rated(guess, items)
    else:
        assert isinstance(guess, Vectors)
        value = guess.vector.double()
    length: Tensor = torch.linalg.vector_norm(value, dim=1, keepdim=True)
    return value / length.clamp_min(1e-30)


def _rated(guess: Ratings, items: int) -> Tensor:
    clients, sender = len(guess.clients), guess.sender
    rating = guess.rating.double()
    some = rating.new_zeros(clients).index_add(0, sender, torch.ones_like(rating))
    mean = rating.new_zeros(clients).index_add(0, sender, rating) / some.clamp_min(1)
    above = rating - mean[sender]
    value = rating.new_zeros(2, clients, items)
    value[0, sender, guess.item] = 1.0
    value[1, sender, guess.item] = above / above.square().mean().sqrt().clamp_min(1e-12)
    return value.transpose(0, 1).flatten(1)


def classified(table: Tensor, labels: Labels, clients: Tensor, fit: float) -> Tensor:
    """Log chances of each class, (clients, classes), learned from those known.

    ``table`` (clients, width) is scaled so that rows lie 1 from their mean, in the
    root mean square. Where fewer than two classes are known nothing can be learned:
    every user gets the shares of the known ones.
    """
    label = labels.label[clients]
    known = label != UNKNOWN
    count = torch.bincount(label[known], minlength=len(labels.names)).double()
    if int((count > 0).sum()) < 2:
        share = (count + 0.5) / (count + 0.5).sum()
        return share.log().expand(len(clients), -1).contiguous()
    off_mean = (table - table.mean(0)).square().sum(1).mean().sqrt()
    found = _regressed(table / off_mean.clamp_min(1e-12), label, known, fit)
    every = table.new_full((len(clients), len(count)), math.log(_NEVER))
    every[:, count > 0] = found
    return every


def _regressed(table: Tensor, label: Tensor, known: Tensor, fit: float) -> Tensor:
    """Log chances of the classes that are known, (clients, classes)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    x, y = _matrix(table), label.cpu().numpy()
    learned = known.cpu().numpy()
    model = LogisticRegression(C=fit, max_iter=_STEPS)
    with warnings.catch_warnings():  # not quite converged is still a guess
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x[learned], y[learned])
    chance = np.log(np.maximum(model.predict_proba(x), _NEVER))
    return torch.from_numpy(chance).to(table)


def _matrix(table: Tensor) -> "np.ndarray | csr_matrix":
    """As scikit-learn reads it fastest; an intercept makes centering needless."""
    from scipy.sparse import csr_matrix

    value = table.cpu().numpy()
    mostly_zero = np.count_nonzero(value) < 0.2 * value.size
    return csr_matrix(value) if mostly_zero else value - value.mean(0)
