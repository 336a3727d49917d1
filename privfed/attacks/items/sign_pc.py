"""Sign-PC: positives and negatives point in opposite directions along one axis.

For an implicit recommender every uploaded item row is (sigmoid(s) - y) times one
direction of the client, so the sign of a row's first principal component separates
what the client interacted with from what it drew as negatives. A row that was sent and
did not move is an interaction too: in single precision the sigmoid reaches 1 at a score
of 17 but 0 only below -100. What a row carries
beside that, weight decay and the like, follows from the model that the client received
and is taken off first.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from privfed.adversary import Attack, Knowledge, Prior
from privfed.attacks.items.evidence import OUTCOMES, Reading, empty, take
from privfed.attacks.items.verdict import Verdict, likely
from privfed.attacks.reading.axis import by_client, off_axis, principal
from privfed.attacks.reading.orientation import Sides, turned
from privfed.attacks.reading.public import Facts
from privfed.checks import at_least, positive
from privfed.guesses import Items
from privfed.interfaces import Method, State
from privfed.messages import Rows
from privfed.surfaces import WholeGradient
from privfed.views import ModelView, UploadsView, View

_STILL = 2.0  # strength of a row that was sent and did not move
_EXACT = 1e-4  # of a client's usual strength: noise is never thought to be less


@dataclass(frozen=True)
class SignPC(Attack):
    """Interacted-item recovery from uploads, by the sign of the first component.

    Which side is the positives: the one whose size explains that of the other as so
    many sampled negatives, and whose items are more popular. Where a client sends every
    row, as under noise on all rows, a row's strength is measured in deviations of the
    noise, whose scale is seen off the axis.

    A client's ``first`` upload decides, by sign alone; where every row is sent, only
    rows that stand ``deviations`` out. With ``uploads="all"`` (``sign_pc_rounds``) all
    of them count: how often an item came with which sign and strength is fitted by a
    mixture of interactions and others, with the items' popularity as what is likely
    beforehand. ``power`` bounds the power iterations for the principal direction.
    """

    uploads: Literal["all", "first"] = "first"
    power: int = 30
    deviations: float = 3.0

    sees = (UploadsView, ModelView)
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
        memory = empty(prior.clients, prior.items, OUTCOMES)
        memory["negatives"] = torch.tensor(prior.negatives)
        return memory | {"share": likely(prior)}

    def observe(self, memory: State, view: View) -> State:
        if isinstance(view, ModelView):
            return self.known().received(memory, view.model)
        assert isinstance(view, UploadsView)
        known = memory["uploads"][view.clients] > 0
        if self.uploads == "first" and bool(known.all()):
            return memory
        best = Reading.nothing(len(view.clients), memory["counts"].shape[2])
        for name, rows in view.uploads.rows.items():
            best = best.or_better(self._read(name, rows, len(view.clients), memory))
        take(memory, view.clients, best, once=self.uploads == "first")
        return memory

    def _read(self, name: str, rows: Rows, clients: int, memory: State) -> "Reading":
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
        faint = by_client(quiet.float(), rows.sender, clients) > 0
        turn = turned(rows, sign, axis, sides, faint)
        along = torch.where(turn[rows.sender], -along, along)
        still = (rows.value == 0).all(1) & (usual > 0)[rows.sender]
        along = torch.where(still & ~every[rows.sender], _STILL, along)
        came = torch.zeros(clients, items, dtype=torch.bool)
        came[rows.sender, rows.item] = True
        told = torch.zeros(clients, items)
        told[rows.sender, rows.item] = along
        return Reading(came, told, every, explained)

    def guess(self, memory: State, prior: Prior) -> Items:
        verdict = Verdict(self.deviations)
        if self.uploads == "first":
            return verdict.by_sign(memory)
        return verdict.by_all(memory, prior)


@dataclass(frozen=True)
class ReadySignPC(SignPC):
    """Sign-PC that knows the method's public facts; made by ``SignPC.prepare``."""

    facts: Facts = Facts()  # noqa: RUF009 - frozen

    def known(self) -> Facts:
        return self.facts
