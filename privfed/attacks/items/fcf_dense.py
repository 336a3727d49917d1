"""FCF's upload of every row, solved: who interacted with what, how often, and x.

A client of FCF (Ammad-ud-din et al., 2019) sends f_i = c_i (p_i - <x, y_i>) x for
every item i. With w the direction of x, b_i = <f_i, w> and z_i = <y_i, w> an item that
was not taken (c = 1, p = 0) has b_i = -|x|^2 z_i, so that a line through the origin
passes through most items. Those off it were taken, the side of the farthest gives the
sign of x, and c_i = b_i / (|x| (1 - |x| z_i)) is how much each weighed.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from privfed.adversary import Attack, Prior
from privfed.attacks.items.evidence import OUTCOMES, Reading, empty, take
from privfed.attacks.items.verdict import Verdict
from privfed.attacks.reading.axis import principal
from privfed.checks import at_least
from privfed.guesses import Items
from privfed.interfaces import Method, State
from privfed.messages import Rows
from privfed.surfaces import WholeGradient
from privfed.views import ModelView, UploadsView, View

_MODEL = "model."
_NORMAL = 1.4826  # from a median absolute deviation to a standard deviation
_EXACT = 1e-5  # of the strongest row: single precision is never thought to be finer


@dataclass(frozen=True)
class FCFDense(Attack):
    """Interacted items of FCF's clients: those off the line that all others lie on.

    An item counts as off it from ``deviations`` of what most lie off; ``power`` bounds
    the iterations for the direction. Evidence of all uploads adds up, or the ``first``
    of each client decides.
    """

    uploads: Literal["all", "first"] = "all"
    power: int = 50
    deviations: float = 6.0

    sees = (UploadsView, ModelView)
    tasks = ("ranking",)
    paper = "this project, on Ammad-ud-din et al., 2019"

    def __post_init__(self) -> None:
        at_least(self, 1, "power")
        if not self.deviations > 1:
            raise ValueError(f"deviations must be more than 1, got {self.deviations}")

    def misfit(self, method: Method) -> str:
        if isinstance(method, WholeGradient):
            return ""
        return "reads uploads of methods that send a gradient of every row: FCF's"

    def prepare(self, prior: Prior) -> Attack:
        assert isinstance(prior.method, WholeGradient)
        table = prior.method.whole_table()
        return ReadyFCFDense(self.uploads, self.power, self.deviations, table)

    def start(self, prior: Prior) -> State:
        return empty(prior.clients, prior.items, OUTCOMES)

    def observe(self, memory: State, view: View) -> State:
        raise TypeError("an attack that reads the received table must be prepared")

    def guess(self, memory: State, prior: Prior) -> Items:
        return Verdict(self.deviations**2 - 1).by_strength(memory)


@dataclass(frozen=True)
class ReadyFCFDense(FCFDense):
    """The attack that knows the table's name; made by ``FCFDense.prepare``."""

    table: str = ""

    def observe(self, memory: State, view: View) -> State:
        name = f"{_MODEL}{self.table}"
        if isinstance(view, ModelView):
            return {**memory, name: view.model[self.table]}
        assert isinstance(view, UploadsView)
        rows = view.uploads.rows[self.table]
        solved = Solved.of(rows, memory[name], len(view.clients), self.power)
        every = torch.ones_like(view.clients, dtype=torch.bool)
        told = Reading(solved.came, solved.off.square() - 1, every, every.float())
        take(memory, view.clients, told, once=self.uploads == "first")
        return memory


@dataclass(frozen=True, eq=False)
class Solved:
    """What one upload of each client gives away."""

    came: Tensor  # (clients, items) bool: rows that were sent
    off: Tensor  # (clients, items) how far off the line, in deviations
    user: Tensor  # (clients, width): x
    confidence: Tensor  # (clients, items): c, where the item was taken

    @classmethod
    def of(cls, rows: Rows, table: Tensor, clients: int, power: int) -> "Solved":
        """Solve for uploads whose devices received ``table`` (items, width)."""
        exact = Rows(rows.sender, rows.item, rows.value.double())
        along, axis, _ = principal(exact, clients, power)
        at = rows.sender, rows.item
        b = along.new_zeros(clients, len(table)).index_put(at, along)
        came = torch.zeros_like(b, dtype=torch.bool).index_put(
            at, torch.ones((), dtype=torch.bool)
        )
        z = axis @ table.double().T
        square = _slope(-b, z, came).clamp_min(0)
        off = torch.where(came, b + square[:, None] * z, 0.0)
        spread = _NORMAL * _middle(off.abs(), came.double())
        unit = torch.maximum(spread, _EXACT * b.abs().amax(1)).clamp_min(1e-30)
        side = off.pow(3).sum(1).sign()[:, None]  # what is far off decides
        length = square.sqrt()[:, None]
        weight = side * b / (length * (1 - side * length * z))
        return cls(came, side * off / unit[:, None], side * length * axis, weight)


def _slope(b: Tensor, z: Tensor, came: Tensor) -> Tensor:
    """The slope of most points: least absolute deviations, (clients,)."""
    weight = torch.where(came, z.abs(), 0.0)
    return _middle(b / torch.where(z == 0, 1.0, z), weight)


def _middle(value: Tensor, weight: Tensor) -> Tensor:
    """Weighted median of each row, (clients,)."""
    value, order = value.sort(dim=1)
    below = weight.gather(1, order).cumsum(1)
    half = below[:, -1:] / 2
    at = (below < half).sum(1, keepdim=True).clamp_max(value.shape[1] - 1)
    return value.gather(1, at)[:, 0]
