"""Interacted items from the gradient of a layer that reads public features.

Such a layer's weight moves by the sum over a client's items of d_i f_i': the item's
public features f_i times what came back to the layer. Along the direction that most
d_i share this is a known dictionary times one number for each item, which are solved
for. No item row is looked at.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from privfed.adversary import Attack, Knowledge, Prior
from privfed.attacks.items.evidence import OUTCOMES, Reading, empty, take
from privfed.attacks.items.verdict import Verdict, likely
from privfed.attacks.reading.axis import principal
from privfed.attacks.reading.orientation import Sides, turned
from privfed.attacks.reading.public import Facts
from privfed.checks import at_least, positive
from privfed.guesses import Items
from privfed.interfaces import Method, State
from privfed.messages import Rows, Uploads, every
from privfed.surfaces import Reads, ReadsItems
from privfed.views import ModelView, UploadsView, View

_FEATURE, _SIZES, _INVERSE, _KNOWN = "feature.", "sizes", "inverse", "known"
_QUIET, _NORMAL = 0.2, 0.2533  # a share of items that few clients touch more than
_TOUCHED = 0.05  # of a client's strongest item: no noise, where most are touched
_EXACT = 1e-3  # of a client's strongest item: the solution is never finer


@dataclass(frozen=True)
class FeatureSpan(Attack):
    """Interacted-item recovery from layers that read what is public of items.

    Reads single uploads' changes of those layers, and knows the features; tables of
    the model count as public features too, since the server holds them. Where there
    are more items than features only what stands ``deviations`` out of the rest is
    told. ``ridge`` is relative to the dictionary's mean squared singular value.
    """

    uploads: Literal["all", "first"] = "all"
    power: int = 30
    deviations: float = 3.0
    ridge: float = 1e-6

    sees = (UploadsView, ModelView)
    tasks = ("ranking",)
    knows = Knowledge(popularity=True, features=True)
    paper = "this project"

    def __post_init__(self) -> None:
        at_least(self, 1, "power")
        positive(self, "deviations", "ridge")

    def misfit(self, method: Method) -> str:
        if isinstance(method, ReadsItems):
            return ""
        return "reads uploads of methods with a shared layer over public item features"

    def prepare(self, prior: Prior) -> Attack:
        facts = Facts.of(prior.method, prior.shape)
        return ReadyFeatureSpan(
            self.uploads, self.power, self.deviations, self.ridge, facts
        )

    def start(self, prior: Prior) -> State:
        memory = empty(prior.clients, prior.items, OUTCOMES)
        memory["negatives"] = torch.tensor(prior.negatives)
        memory |= {f"{_FEATURE}{name}": table for name, table in prior.features.items()}
        return memory | {"share": likely(prior)}

    def observe(self, memory: State, view: View) -> State:
        raise TypeError("an attack that reads the method's layers must be prepared")

    def guess(self, memory: State, prior: Prior) -> Items:
        verdict = Verdict(self.deviations)
        if self.uploads == "first":
            return verdict.by_sign(memory)
        return verdict.by_all(memory, prior)


@dataclass(frozen=True)
class ReadyFeatureSpan(FeatureSpan):
    """The attack that knows the layers; made by ``FeatureSpan.prepare``."""

    facts: Facts = Facts()  # noqa: RUF009 - frozen

    def observe(self, memory: State, view: View) -> State:
        if isinstance(view, ModelView):
            return self._received(memory, view)
        assert isinstance(view, UploadsView)
        told = self._read(view.uploads, memory)
        take(memory, view.clients, told, once=self.uploads == "first")
        return memory

    def _received(self, memory: State, view: ModelView) -> State:
        """The memory with what the layers read of each item, and its inverse."""
        inputs = [self._input(memory, view, read) for read in self.facts.layers]
        known = torch.cat([table / _size(table) for table in inputs], 1)
        sizes = torch.stack([_size(table) for table in inputs])
        inverse = _inverse(known, self.ridge)
        return {**memory, _SIZES: sizes, _INVERSE: inverse, _KNOWN: known}

    def _input(self, memory: State, view: ModelView, read: Reads) -> Tensor:
        """What a layer reads of each item, (items, in)."""
        if read.feature:
            return memory[f"{_FEATURE}{read.feature}"].double()
        return torch.stack([view.model[name].double() for name in read.tables]).sum(0)

    def _read(self, uploads: Uploads, memory: State) -> Reading:
        items, clients = memory["counts"].shape[2], len(uploads.clients)
        moved = self._moved(uploads, memory)
        change = _along(moved, self.power)
        told = change @ memory[_INVERSE].T
        noise = _noise(change, told, memory)
        unit = torch.maximum(noise, _EXACT * told.abs().amax(1)).clamp_min(1e-30)
        told = told / unit[:, None]
        loud = told.abs() > self.deviations
        rows, sign = every(told[..., None]), torch.where(loud, told, 0.0).sign()
        faint = torch.full((clients,), moved.shape[2] < items)
        sides = Sides(memory["share"], int(memory["negatives"]))
        turn = turned(rows, sign.flatten(), told, sides, faint)
        told = torch.where(turn[:, None], -told, told)
        each = torch.ones(clients, dtype=torch.bool)
        return Reading(torch.ones_like(loud), told.float(), each, each.float())

    def _moved(self, uploads: Uploads, memory: State) -> Tensor:
        """Changes of all layers side by side, (clients, out, in)."""
        moved = []
        for read, size in zip(self.facts.layers, memory[_SIZES], strict=True):
            change = uploads.dense[f"{read.layer}.weight"]
            moved.append(change[..., read.first :].double() / size)
        return torch.cat(moved, 2)


def _size(table: Tensor) -> Tensor:
    """The usual length of a row, ()."""
    return table.square().sum(1).mean().sqrt().clamp_min(1e-30)


def _noise(change: Tensor, told: Tensor, memory: State) -> Tensor:
    """Deviation of an item that was not touched, (clients,).

    Seen in the items that stand out least, and in what no item explains where there
    are more features than items. There a client may also touch nearly all items.
    """
    known, inverse = memory[_KNOWN], memory[_INVERSE]
    items, width = known.shape
    least = told.abs().quantile(_QUIET, dim=1) / _NORMAL
    if width <= items:
        return least
    left = (change - told @ known).square().sum(1) / (width - items)
    noise = (left * inverse.square().sum(1).mean()).sqrt()
    return torch.maximum(noise, torch.minimum(least, _TOUCHED * told.abs().amax(1)))


def _inverse(known: Tensor, ridge: float) -> Tensor:
    """The ridge-regularized inverse of what is known of items, (items, in)."""
    items, width = known.shape
    wide = width > items
    gram = known @ known.T if wide else known.T @ known
    size = ridge * gram.diagonal().mean()
    gram = gram + size * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    solved: Tensor = torch.linalg.solve(gram, known if wide else known.T)
    return solved if wide else solved.T


def _along(moved: Tensor, power: int) -> Tensor:
    """Changes (clients, out, in) along their main output, (clients, in)."""
    clients, _, width = moved.shape
    rows = every(moved.transpose(1, 2))
    along, _, _ = principal(Rows(rows.sender, rows.item, rows.value), clients, power)
    return along.view(clients, width)
