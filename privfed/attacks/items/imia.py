"""IMIA: guess labels, train on them as a client would, keep those that fit.

Yuan, Yang, Nguyen, Cui, He and Yin, Interaction-level Membership Inference Attack
Against Federated Recommender Systems, WWW 2023; details as in its released code.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.adversary import Attack, Prior
from privfed.attacks.reading import records
from privfed.attacks.reading.records import Victims
from privfed.checks import at_least
from privfed.guesses import Items
from privfed.interfaces import Method, State
from privfed.replay import random_own, repeat
from privfed.seeds import Stream
from privfed.surfaces import Replayable
from privfed.views import ModelView, UploadsView, View

Train = Callable[[Tensor], Tensor]  # labels (clients, candidates) to shadow rows
_CELLS = 2**15  # candidates whose shadows are trained at once


@dataclass(frozen=True)
class Imia(Attack):
    """Interacted-item recovery as IMIA does it: labels whose shadow rows come close.

    A random ``share`` of the items that a client sent is labeled 1. A shadow copy of
    the received model, with a random private part, is trained on that; the items are
    ranked by how far the shadow's row is from the one sent. The labels of the closest
    ``keep`` of them, as a share of all, are believed, the others drawn anew, until a
    ``share`` of all is believed to be 1. Attacks ``victims`` clients, drawn among those
    seen, by their first upload.
    """

    share: float = 0.2
    keep: float = 0.9
    victims: int = 200

    sees = (ModelView, UploadsView)
    tasks = ("ranking",)
    paper = "Yuan et al., WWW 2023"

    def __post_init__(self) -> None:
        at_least(self, 1, "victims")
        for name in ("share", "keep"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise ValueError(f"{name} must lie in (0, 1), got {value}")

    def misfit(self, method: Method) -> str:
        if isinstance(method, Replayable):
            return ""
        return "cannot repeat this method's local training"

    def start(self, prior: Prior) -> State:
        return records.begin(prior)

    def observe(self, memory: State, view: View) -> State:
        return records.observed(memory, view, self.victims, 1)

    def guess(self, memory: State, prior: Prior) -> Items:
        who = records.victims(memory, torch.float32)
        score = torch.zeros(len(who.clients), prior.items)
        chosen = torch.zeros(score.shape, dtype=torch.bool)
        rule = Rule(self.share, self.keep, prior.stream.of("labels"))
        for group in who.groups(_CELLS):
            train, value = _shadow(prior, group)
            yes = rule.believed(train, value, group.real, group.clients)
            victim, at = group.real.nonzero(as_tuple=True)
            row = torch.searchsorted(who.clients, group.clients)[victim]
            where = row, group.item[victim, at]
            chosen[where] = yes[victim, at]
            score[where] = 1.0 + yes[victim, at].float()  # sent, and believed
        return Items(who.clients, score, chosen)


@dataclass(frozen=True)
class Rule:
    """How labels are drawn and believed."""

    share: float
    keep: float
    stream: Stream

    def believed(
        self, train: Train, value: Tensor, real: Tensor, clients: Tensor
    ) -> Tensor:
        """Which candidates are labeled 1 in the end, (clients, candidates) bool.

        ``value`` (clients, candidates, width) are the rows sent; ``real`` marks what
        is no padding. Where all that is left open will be believed no shadow is
        trained: how far its rows are would change nothing.
        """
        count = real.sum(1, keepdim=True)
        aim = (self.share * count.double()).floor()
        quota = (self.keep * count.double()).floor() + 1
        slot = torch.arange(real.shape[1])
        yes = no = torch.zeros_like(real)
        for turn in range(real.shape[1] + 1):
            missing = aim - yes.sum(1, keepdim=True)
            left = real & ~yes & ~no & (missing > 0)
            if not bool(left.any()):
                break
            key = self.stream.of("turn", turn).uniform(clients[:, None], slot)
            label = yes | (left & (_rank(key, left) < missing))
            near = left
            if bool((left.sum(1, keepdim=True) > quota).any()):
                gap = torch.linalg.vector_norm(train(label) - value, dim=2)
                near = left & (_rank(gap, left) < quota)
            yes, no = yes | (near & label), no | (near & ~label)
        return yes


def _rank(key: Tensor, among: Tensor) -> Tensor:
    """Each one's place by ascending key among the marked, (clients, candidates)."""
    order = key.masked_fill(~among, torch.inf).sort(dim=1, stable=True).indices
    return order.sort(dim=1).indices


def _shadow(prior: Prior, who: Victims) -> tuple[Train, Tensor]:
    """Training of shadow clients on the candidates and labels, and the rows sent."""
    assert isinstance(prior.method, Replayable)
    [sent] = who.uploads
    recipe = prior.method.recipe(prior.shape, int(sent.round[0]))
    tables = [name for name in recipe.tables if name in sent.rows_moved]
    rows = {name: sent.rows[name] for name in recipe.tables}
    shared = {name: sent.shared[name] for name in recipe.shared}
    width = max((size[-1] for size in recipe.own.values()), default=1)
    spread = (2 / (prior.clients + width)) ** 0.5  # Xavier's, of a table of all users
    rng = prior.stream.of("own", int(who.clients[0])).generator()
    count, samples = who.real.shape
    drawn = random_own(recipe, count, samples, rng, spread)
    own = {name: value.float() for name, value in drawn.items()}

    def train(label: Tensor) -> Tensor:
        done = repeat(recipe, rows, shared, own, label.float(), sent.real)
        return torch.cat([done.rows[name] for name in tables], 2)

    return train, torch.cat([sent.rows_moved[name] for name in tables], 2)
