"""Membership of a whole user: did this person take part in training?

A client changes the rows of the items that it has, and nearly all of those in one way,
along its own vector. So somebody who has a candidate's interactions and receives the
model of every round asks of each round: did all of these rows move, and did they move
together, more than rows of like popularity do?
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.adversary import Attack, Knowledge, Prior
from privfed.checks import at_least
from privfed.guesses import Users
from privfed.interfaces import START, State
from privfed.views import ModelView, View

_NEVER = 1e-9  # chance that a row stays where it was though its client trained on it


@dataclass(frozen=True)
class UserMembership(Attack):
    """Membership of a user whose interactions are known, from models that are sent out.

    The evidence of a round is a log-likelihood ratio of which rows moved, against the
    rate at which rows of like popularity (``groups`` of them) do, and of how far they
    moved along one direction, all alike or in proportion to the candidate's ratings,
    beyond what rows of like popularity do.
    A candidate scores the evidence of its best round. The items' popularity is that
    among all candidates.
    """

    groups: int = 32

    sees = (ModelView,)
    knows = Knowledge(profiles=True)
    recovers = "who took part in training"
    tasks = ("ranking", "rating")
    paper = "this project; of centralized recommenders: Zhang et al., CCS 2021"

    def __post_init__(self) -> None:
        at_least(self, 1, "groups")

    def start(self, prior: Prior) -> State:
        profiles = prior.profiles
        assert profiles is not None
        owner, item = profiles.owner, profiles.item
        mean = _sums(profiles.label[:, None], owner, prior.clients)[:, 0]
        mean = mean / profiles.counts.clamp_min(1)
        popularity = torch.bincount(item, minlength=prior.items)
        order = popularity.argsort(stable=True).argsort(stable=True)
        return {
            "owner": owner,
            "item": item,
            "taste": profiles.label - mean[owner],  # all 0 where nothing is rated
            "group": order * min(self.groups, prior.items) // prior.items,
            "score": torch.full((prior.clients,), -torch.inf, dtype=torch.float64),
        }

    def observe(self, memory: State, view: View) -> State:
        assert isinstance(view, ModelView)
        items = len(memory["group"])
        tables = [
            value.double()
            for name, value in view.model.items()
            if value.dim() == 2 and len(value) == items and not name.endswith(START)
        ]
        if not tables:
            return memory
        now = torch.cat(tables, 1)
        before = memory.get("before")
        if before is None:
            return {**memory, "before": now}
        score = memory["score"]
        if not torch.equal(before, now):
            score = torch.maximum(score, _evidence(now - before, memory))
        return {**memory, "before": now, "score": score}

    def guess(self, memory: State, prior: Prior) -> Users:
        assert prior.profiles is not None
        known = (prior.profiles.counts > 0) & memory["score"].isfinite()
        clients = known.nonzero()[:, 0]
        return Users(clients, memory["score"][clients])


def _evidence(change: Tensor, memory: State) -> Tensor:
    """How likely each candidate was in this round, (clients,)."""
    group, owner, item = memory["group"], memory["owner"], memory["item"]
    clients = len(memory["score"])
    moved = change.abs().sum(1) > 0
    rate = _by_group(moved.double(), group).clamp(1e-6, 1 - 1e-6)
    stays = (torch.full_like(rate, _NEVER) / (1 - rate)).log()
    each = torch.where(moved, -rate.log(), torch.where(rate < 1 - 1e-5, stays, 0.0))
    found = _sums(each[item, None], owner, clients)[:, 0]
    own = change - _by_group(change, group)  # less what popularity does to such a row
    size = _by_group(own.square().sum(1), group).clamp_min(1e-300)[item]
    width = change.shape[1]
    for weight in (torch.ones_like(size), memory["taste"].double()):
        pull = _sums((weight / size)[:, None] * own[item], owner, clients)
        scale = _sums((weight.square() / size)[:, None], owner, clients)[:, 0]
        along = pull.square().sum(1) / scale.clamp_min(1e-300)  # 1 by chance
        found = found + width / 2 * along.log1p()
    return found


def _by_group(value: Tensor, group: Tensor) -> Tensor:
    """The mean over each row's group, shaped as ``value``."""
    groups = int(group.max()) + 1
    total = value.new_zeros(groups, *value.shape[1:]).index_add_(0, group, value)
    count = torch.bincount(group, minlength=groups).view(-1, *[1] * (value.dim() - 1))
    return (total / count)[group]


def _sums(value: Tensor, owner: Tensor, clients: int) -> Tensor:
    return value.new_zeros(clients, value.shape[1]).index_add_(0, owner, value)
