"""IMIA: guess labels, train on them as a client would, keep those that fit.

Yuan, Yang, Nguyen, Cui, He and Yin, Interaction-level Membership Inference Attack
Against Federated Recommender Systems, WWW 2023; details as in its released code.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.adversary import Attack, Prior
from privfed.attacks.first_uploads import (
    Sent,
    clients,
    empty,
    model_of,
    noted,
    sent,
)
from privfed.attacks.replay import random_own, replay
from privfed.checks import at_least
from privfed.guesses import Items
from privfed.interfaces import Method, Replayable, State
from privfed.seeds import Stream
from privfed.views import ServerView, UploadsView, View

Train = Callable[[Tensor], Tensor]  # labels (clients, candidates) to shadow rows
_NUMBERS = 30_000_000  # of shadow rows that are held at once


@dataclass(frozen=True)
class Imia(Attack):
    """Interacted-item recovery as IMIA does it: labels whose shadow rows come close.

    A random ``share`` of the items that a client sent is labeled 1. A shadow copy of
    the received model, with a random private part, is trained on that; the items are
    ranked by how far the shadow's row is from the one sent. The labels of the closest
    ``keep`` of them, as a share of all, are believed, the others drawn anew, until a
    ``share`` of all is believed to be 1. Of ``victims`` clients drawn at random, those
    of the first ``rounds`` rounds are attacked, by their first upload.
    """

    share: float = 0.2
    keep: float = 0.9
    victims: int = 200
    rounds: int = 1

    sees = (ServerView, UploadsView)
    tasks = ("ranking",)
    paper = "Yuan et al., WWW 2023"

    def __post_init__(self) -> None:
        at_least(self, 1, "victims", "rounds")
        for name in ("share", "keep"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise ValueError(f"{name} must lie in (0, 1), got {value}")

    def misfit(self, method: Method) -> str:
        if isinstance(method, Replayable):
            return ""
        return "repeats local training; this method tells no recipe for it"

    def start(self, prior: Prior) -> State:
        return empty(prior, self.victims)

    def observe(self, memory: State, view: View) -> State:
        return noted(memory, view) if view.round < self.rounds else memory

    def guess(self, memory: State, prior: Prior) -> Items:
        found, round = clients(memory)
        score = torch.zeros(len(found), prior.items)
        chosen = torch.zeros(len(found), prior.items, dtype=torch.bool)
        for number in sorted({*round.tolist()}):
            at = (round == number).nonzero()[:, 0]
            for part in self._parts(memory, prior, number, found[at]):
                seen, yes = self._attack(memory, prior, number, found[at[part]])
                owner = at[part][:, None].expand_as(seen.item)[seen.real]
                where = owner, seen.item[seen.real]
                chosen[where] = yes[seen.real]
                score[where] = 1.0 + yes[seen.real].float()  # sent, and believed
        return Items(found, score, chosen)

    def _parts(
        self, memory: State, prior: Prior, round: int, of: Tensor
    ) -> tuple[Tensor, ...]:
        """Places of the clients that are attacked together, in order."""
        tables = _tables(prior, round)
        width = sum(memory[f"value {name}"].shape[1] for name in tables)
        room = max(1, _NUMBERS // (width * prior.items))
        return torch.split(torch.arange(len(of)), room)

    def _attack(
        self, memory: State, prior: Prior, round: int, of: Tensor
    ) -> tuple[Sent, Tensor]:
        tables = _tables(prior, round)
        seen = sent(memory, of, tables, prior.items)
        train = _shadow(prior, model_of(memory, round), round, seen, of)
        rule = Rule(self.share, self.keep, prior.stream.of("labels", round))
        return seen, rule.believed(train, seen, of)


@dataclass(frozen=True)
class Rule:
    """How labels are drawn and believed."""

    share: float
    keep: float
    stream: Stream

    def believed(self, train: Train, seen: Sent, of: Tensor) -> Tensor:
        """Which candidates are labeled 1 in the end, (clients, candidates) bool.

        Where all that is left open will be believed, no shadow is trained: how far
        its rows are would change nothing.
        """
        count = seen.real.sum(1, keepdim=True)
        aim = (self.share * count.double()).floor()
        quota = (self.keep * count.double()).floor() + 1
        yes = no = torch.zeros_like(seen.real)
        for turn in range(int(count.max()) + 1):
            open_ = seen.real & ~yes & ~no & (yes.sum(1, keepdim=True) < aim)
            if not bool(open_.any()):
                break
            slot = torch.arange(open_.shape[1])
            key = self.stream.of("turn", turn).uniform(of[:, None], slot)
            label = yes | (open_ & (_rank(key, open_) < aim - yes.sum(1, keepdim=True)))
            near = open_
            if bool((open_.sum(1, keepdim=True) > quota).any()):
                gap = torch.linalg.vector_norm(train(label) - seen.value, dim=2)
                near = open_ & (_rank(gap, open_) < quota)
            yes, no = yes | (near & label), no | (near & ~label)
        return yes


def _rank(key: Tensor, among: Tensor) -> Tensor:
    """Each one's place by ascending key among the marked, (clients, candidates)."""
    order = key.masked_fill(~among, torch.inf).sort(dim=1, stable=True).indices
    return order.sort(dim=1).indices


def _tables(prior: Prior, round: int) -> list[str]:
    assert isinstance(prior.method, Replayable)
    return [*prior.method.recipe(prior.shape, round).tables]


def _shadow(prior: Prior, model: State, round: int, seen: Sent, of: Tensor) -> Train:
    """Local training of shadow clients on the candidates and given labels."""
    assert isinstance(prior.method, Replayable)
    recipe = prior.method.recipe(prior.shape, round)
    count, candidates = seen.real.shape
    width = max((size[-1] for size in recipe.own.values()), default=1)
    spread = (2 / (prior.clients + width)) ** 0.5  # Xavier's, of a table of all users
    rng = prior.stream.of("own", int(of[0])).generator()
    own = random_own(recipe, count, candidates, rng, spread)
    small = {name: value.to(seen.value.dtype) for name, value in own.items()}

    def train(label: Tensor) -> Tensor:
        target = label.to(seen.value.dtype)
        done = replay(recipe, model, small, seen.item, target, seen.real)
        return torch.cat([done.rows[name] for name in recipe.tables], 2)

    return train
