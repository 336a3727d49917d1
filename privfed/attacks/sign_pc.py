"""Sign-PC: positives and negatives point in opposite directions along one axis.

For an implicit recommender every uploaded item row is (sigmoid(s) - y) times one
direction of the client, so the sign of a row's first principal component separates
what the client interacted with from what it drew as negatives. What a row carries
beside that, weight decay and the like, follows from the model that the client received
and is taken off first.
"""

from dataclasses import dataclass
from math import erfc, sqrt
from typing import Literal

import torch
from torch import Tensor

from privfed.adversary import Attack, Knowledge, Prior
from privfed.attacks import amplitude
from privfed.attacks.axis import by_client, off_axis, principal
from privfed.attacks.evidence import add, add_strength, empty, seen, strength
from privfed.attacks.mixture import Mixture
from privfed.attacks.orientation import Sides, turned
from privfed.attacks.public import Facts
from privfed.checks import at_least, positive
from privfed.guesses import Items
from privfed.interfaces import Method, State, WholeGradient
from privfed.messages import Rows
from privfed.views import ModelView, UploadsView, View

_LEVELS = (1.0, 3.0)  # strengths that part faint rows from clear ones from loud ones
_SOME = Mixture(wrong=(0.5, 0.02, 1e-4))  # how often a sign of each level errs
_EXACT = 1e-4  # of a client's usual strength: noise is never thought to be less


@dataclass(frozen=True)
class SignPC(Attack):
    """Interacted-item recovery from uploads, by the sign of the first component.

    Which side is the positives: the one whose size explains that of the other as so
    many sampled negatives, and whose items are more popular. Where a client sends every
    row, as under noise on all rows, a row's strength is measured in deviations of the
    noise, whose scale is seen off the axis.

    All uploads of a client count: how often an item came with which sign and strength
    is fitted by a mixture of interactions and others, with the items' popularity as
    what is likely beforehand. With ``uploads="first"`` one upload decides, by sign
    alone; where every row is sent, only rows that stand ``deviations`` out.
    ``power`` bounds the power iterations for the principal direction.
    """

    uploads: Literal["all", "first"] = "all"
    power: int = 30
    deviations: float = 3.0

    sees = (ModelView, UploadsView)
    tasks = ("ranking",)
    knows = Knowledge(popularity=True)
    paper = "sign-PC (this project); iDLG's label rule, Zhao et al., 2020"

    def __post_init__(self) -> None:
        at_least(self, 1, "power")
        positive(self, "deviations")

    def misfit(self, method: Method) -> str:
        if isinstance(method, WholeGradient):
            return "every row is sent with a gradient; take fcf_dense"
        return ""

    def known(self) -> Facts:
        """What is public of the method, once the attack is prepared."""
        return Facts()

    def prepare(self, prior: Prior) -> Attack:
        facts = Facts.of(prior.method, prior.shape)
        return ReadySignPC(self.uploads, self.power, self.deviations, facts)

    def start(self, prior: Prior) -> State:
        memory = dict(empty(prior.clients, prior.items, _SOME.outcomes))
        memory["every row"] = torch.zeros(prior.clients, dtype=torch.bool)
        memory["negatives"] = torch.tensor(prior.negatives)
        memory["share"] = likely(prior)
        return memory

    def observe(self, memory: State, view: View) -> State:
        if isinstance(view, ModelView):
            return self.known().received(memory, view.model)
        assert isinstance(view, UploadsView)
        best = _Reading.nothing(len(view.clients), memory["counts"].shape[2])
        for name, rows in view.uploads.rows.items():
            best = best.or_better(self._read(name, rows, len(view.clients), memory))
        new = torch.ones_like(view.clients, dtype=torch.bool)
        if self.uploads == "first":
            new = memory["uploads"][view.clients] == 0
        at = (best.came & new[:, None]).nonzero(as_tuple=True)
        who = view.clients[at[0]]
        add(memory, who, at[1], _outcome(best.strength[at]))
        add_strength(memory, who, at[1], best.strength[at])
        memory["uploads"][view.clients[new]] += 1
        memory["every row"][view.clients[new]] |= best.every[new]
        return memory

    def _read(self, name: str, rows: Rows, clients: int, memory: State) -> "_Reading":
        items = memory["counts"].shape[2]
        rows = self.known().plain(name, rows, clients, memory, self.power)
        along, axis, explained = principal(rows, clients, self.power)
        noise = off_axis(rows, explained, clients)
        sent = by_client(torch.ones_like(along), rows.sender, clients)
        usual = by_client(along.square(), rows.sender, clients) / sent.clamp_min(1)
        unit = torch.maximum(noise, _EXACT * usual.sqrt()).clamp_min(1e-30)
        along, every = along / unit[rows.sender], sent == items
        quiet = every[rows.sender] & (along.abs() <= self.deviations)
        sign = torch.where(quiet, 0.0, along).sign()
        table = self.known().scored_along(memory, name)
        sides = Sides(memory["share"], int(memory["negatives"]), table)
        turn = turned(rows, sign, axis, sides, clients)
        along = torch.where(turn[rows.sender], -along, along)
        came = torch.zeros(clients, items, dtype=torch.bool)
        came[rows.sender, rows.item] = True
        told = torch.zeros(clients, items)
        told[rows.sender, rows.item] = along
        return _Reading(came, told, every, explained)

    def guess(self, memory: State, prior: Prior) -> Items:
        clients = seen(memory)
        counts, told = memory["counts"][:, clients], strength(memory, clients)
        came, up = counts.sum(0), counts[1::2].sum(0)
        every = memory["every row"][clients, None]
        if self.uploads == "first":
            chosen = (up > 0) & (~every | (told > self.deviations))
            lowest = told.amin(1, keepdim=True) - 1.0
            return Items(clients, torch.where(came > 0, told, lowest), chosen)
        odds = self._fitted(memory, clients, prior)
        return Items(clients, odds, most_likely(odds))

    def _fitted(self, memory: State, clients: Tensor, prior: Prior) -> Tensor:
        """Log odds of all uploads, (clients, items)."""
        counts, times = memory["counts"][:, clients], memory["uploads"][clients]
        up, down = counts[1::2].sum(0), counts[0::2].sum(0)
        share, every = memory["share"], memory["every row"][clients]
        odds = _SOME.log_odds(counts, times, (up > down).double(), share)
        if not every.any():
            return odds
        told = strength(memory, clients[every]) / times[every].double().sqrt()[:, None]
        loud = told.abs() > self.deviations
        chance = erfc(self.deviations / sqrt(2)) * prior.items  # loud by noise alone
        many = loud.sum(1, keepdim=True) > chance + 5 * sqrt(chance) + 5
        odds[every] = amplitude.log_odds(told, loud & many, share, usual(prior))
        return odds


@dataclass(frozen=True)
class ReadySignPC(SignPC):
    """Sign-PC that knows the method's public facts; made by ``SignPC.prepare``."""

    facts: Facts = Facts()  # noqa: RUF009 - frozen

    def known(self) -> Facts:
        return self.facts


@dataclass(frozen=True, eq=False)
class _Reading:
    """What one table of a shard's uploads tells."""

    came: Tensor  # (clients, items) bool
    strength: Tensor  # (clients, items): positives above zero
    every: Tensor  # (clients,) bool: whether every row was sent
    explained: Tensor  # (clients,) share of the rows' energy along the axis

    @classmethod
    def nothing(cls, clients: int, items: int) -> "_Reading":
        none = torch.zeros(clients, items)
        every = torch.zeros(clients, dtype=torch.bool)
        return cls(none.bool(), none, every, torch.full((clients,), -1.0))

    def or_better(self, other: "_Reading") -> "_Reading":
        """For each client the table that is nearer to rank one."""
        take = other.explained > self.explained
        return _Reading(
            torch.where(take[:, None], other.came, self.came),
            torch.where(take[:, None], other.strength, self.strength),
            torch.where(take, other.every, self.every),
            torch.maximum(other.explained, self.explained),
        )


def likely(prior: Prior) -> Tensor:
    """Each item's share of all interactions, as far as is known, (items,) float64."""
    if prior.popularity is None:
        return torch.full((prior.items,), 1 / prior.items, dtype=torch.float64)
    some = prior.popularity.double() + 0.5
    return some / some.sum()


def usual(prior: Prior) -> float:
    """Interactions of a client, as far as is known."""
    if prior.popularity is None:
        return 1.0
    return float(prior.popularity.double().sum()) / prior.clients


def most_likely(odds: Tensor) -> Tensor:
    """As many of the likeliest items as interactions are expected, (clients, items)."""
    many = odds.sigmoid().sum(1).round().long()[:, None]
    rank = odds.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return rank < many


def _outcome(strength: Tensor) -> Tensor:
    """The number of an outcome: odd where positive, larger where louder."""
    level = sum((strength.abs() > bound).long() for bound in _LEVELS)
    return 2 * level + (strength > 0).long()
