"""Places where a user's vector can be read off an upload.

Where a shared layer W reads [u, v] for the private vector u of a client and a row v of
each item, its gradient is sum_k d_k [u, v_k]' and its bias's is sum_k d_k. So the left
part is (sum_k d_k) u' whatever the batch, and u = W_u' b / |b|^2 with W_u, b the two
gradients: the known inversion of a fully connected layer, which a batch does not blur
here, for u is common to all of it. The same b tells how u moves in turn.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from privfed.attacks.reading import rank_one
from privfed.attacks.reading.axis import by_client, off_axis, principal
from privfed.attacks.reading.orientation import Sides, turned
from privfed.attacks.reading.public import Facts
from privfed.interfaces import SERVER, State
from privfed.messages import Rows
from privfed.surfaces import InnerProduct, UserLayer, UserRow
from privfed.views import ServerView, UploadsView

_ROUNDING = 1e-13  # of a number's square: float32 rounds no finer


class Reader(Protocol):
    """One place where vectors are read off."""

    @property
    def name(self) -> str:
        """The private tensor that is claimed."""

    @abstractmethod
    def held(self, memory: State, view: ServerView) -> State:
        """The memory after it saw what the server holds."""

    @abstractmethod
    def sent(self, memory: State, view: UploadsView) -> State:
        """The memory after it saw some clients' uploads."""

    @abstractmethod
    def vectors(self, memory: State) -> tuple[Tensor, Tensor]:
        """Clients, ascending, and the vectors claimed of them."""


@dataclass(frozen=True)
class OfLayer:
    """The change of a layer that reads the vector.

    By least squares over uploads: ``pull`` is ``weight`` times the vector before the
    first of them, plus noise; ``moved`` is how far it went since. ``left`` / ``free``
    is the variance of what the vector does not explain, and ``excess`` what that adds
    to the weight.
    """

    layer: UserLayer
    clients: int
    earlier: float

    @property
    def name(self) -> str:
        return self.layer.vector

    def held(self, memory: State, view: ServerView) -> State:
        return {**memory, "columns": self._columns(view.model[self.layer.weight])}

    def sent(self, memory: State, view: UploadsView) -> State:
        dense, at = view.uploads.dense, view.clients
        change = self._columns(dense[self.layer.weight])
        bias = dense[self.layer.bias].double()
        new = dict(_told(change, bias))
        columns = memory["columns"].expand(len(bias), -1, -1)
        step = torch.bmm(bias[:, None], columns)[:, 0] * self.layer.rate
        moved = _kept(memory, "moved", (self.clients, change.shape[2]))
        new["pull"] -= moved[at] * (new["weight"] - new["excess"])
        moved[at] += step
        after = {**memory, "moved": moved}
        for name, value in new.items():
            kept = _kept(memory, name, (self.clients, value.shape[1]))
            kept[at] = kept[at] * self.earlier + value
            after[name] = kept
        return after

    def vectors(self, memory: State) -> tuple[Tensor, Tensor]:
        if "pull" not in memory:
            return _nothing()
        told = (memory["weight"][:, 0] > 0).nonzero()[:, 0]
        pull, weight, excess, left, free = (
            memory[name][told] for name in ("pull", "weight", "excess", "left", "free")
        )
        noise = left / free.clamp_min(1) * weight
        return told, first_values(pull, weight - excess, noise) + memory["moved"][told]

    def _columns(self, weight: Tensor) -> Tensor:
        """The part of a layer (..., out, in) that reads the vector."""
        first, width = self.layer.first, self.layer.width
        return weight[..., first : first + width].double()


def inverted(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The input that all samples of a client share, and how much tells it.

    From the gradients, or changes, of the columns that read it, (clients, out, width),
    and of the bias, (clients, out): (clients, width) and (clients, 1). The input is
    zero where nothing tells it.
    """
    energy = bias.square().sum(1, keepdim=True)
    along = torch.bmm(bias[:, None], weight)[:, 0]
    return torch.where(energy > 0, along / energy, 0.0), energy


def _told(weight: Tensor, bias: Tensor) -> State:
    """What one upload of each client adds to the sums, each (clients, ...)."""
    found, energy = inverted(weight, bias)
    _, out, width = weight.shape
    explained = found.square().sum(1, keepdim=True) * energy
    left = (weight.square().sum((1, 2))[:, None] - explained).clamp_min(0)
    free = (out - 1) * width
    return {
        "pull": found * energy,
        "weight": energy,
        "excess": left * (out / max(1, free)),
        "left": left,
        "free": torch.full_like(energy, free),
    }


def first_values(pull: Tensor, weight: Tensor, noise: Tensor) -> Tensor:
    """Each client's x of ``pull`` = ``weight`` x + noise, (clients, width).

    ``noise`` (clients, 1) is its variance. Where it leaves too little to tell clients
    apart, as where all start from one vector, x is drawn to the mean of all: the best
    linear unbiased prediction, Robinson, Statistical Science 1991. How far the true
    values lie apart is told by the method of moments.
    """
    mean = pull.sum(0) / weight.sum().clamp_min(1e-3 * weight.abs().sum() + 1e-300)
    weight = weight.clamp_min(0)
    off = pull - weight * mean
    least = _ROUNDING * pull.square().mean() + 1e-300
    noise = noise.clamp_min(least)
    trust = (weight * (least / noise)).square()
    beyond = off.square().mean(1, keepdim=True) - noise
    between = (trust * beyond).sum() / (trust * weight.square()).sum().clamp_min(1e-300)
    share = between.clamp_min(0) * weight
    return mean + share * off / (share * weight + noise)


@dataclass(frozen=True)
class OfRows:
    """The direction of a client's item rows, positives along it."""

    name: str
    clients: int
    facts: Facts
    negatives: int
    earlier: float
    power: int
    deviations: float

    def held(self, memory: State, view: ServerView) -> State:
        return self.facts.received(memory, view.model)

    def sent(self, memory: State, view: UploadsView) -> State:
        clients = len(view.clients)
        best: Tensor | None = None
        most = torch.full((clients, 1), -1.0, dtype=torch.float64)
        for name, rows in view.uploads.rows.items():
            plain = self.facts.plain(name, rows, clients, memory, self.power)
            wide = replace(plain, value=plain.value.double())
            table = self.facts.scored_along(memory, name)
            sides = Sides(memory["share"], self.negatives, table)
            axis, share = self._axis(wide, clients, sides)
            best = axis if best is None else torch.where(share > most, axis, best)
            most = torch.maximum(share, most)
        if best is None:
            return memory
        pull = _kept(memory, "pull", (self.clients, best.shape[1]))
        pull[view.clients] = pull[view.clients] * self.earlier + best
        return {**memory, "pull": pull}

    def _axis(self, rows: Rows, clients: int, sides: Sides) -> tuple[Tensor, Tensor]:
        """Each client's axis, positives along it and as long as its rows tell it.

        (clients, width), and its share of the rows' energy, (clients, 1).
        """
        sender = rows.sender
        along, axis, explained = principal(rows, clients, self.power)
        sent = by_client(torch.ones_like(along), sender, clients)
        noise = off_axis(rows, explained, clients) * self.deviations
        every = sent == len(sides.share)
        quiet = every[sender] & (along.abs() <= noise[sender])
        sign = torch.where(quiet, 0.0, along).sign()
        turn = turned(rows, sign, axis, sides, every)
        length = by_client(along.square(), sender, clients).sqrt()
        length = torch.where(turn, -length, length)
        return axis * length[:, None], explained[:, None]

    def vectors(self, memory: State) -> tuple[Tensor, Tensor]:
        return _directions(memory)


@dataclass(frozen=True)
class OfRatings:
    """The direction of rows that are errors of ratings times the vector."""

    method: InnerProduct
    clients: int
    earlier: float
    deviations: float

    @property
    def name(self) -> str:
        return self.method.pass_(0).vector

    def held(self, memory: State, view: ServerView) -> State:
        return {**memory, "table": view.model[self.method.pass_(view.round).table]}

    def sent(self, memory: State, view: UploadsView) -> State:
        how, up = self.method.pass_(view.round), view.uploads
        clients, scale = len(view.clients), up.scale[how.table]
        read = rank_one.read(
            up.rows[how.table],
            clients,
            memory["table"],
            how,
            scale,
            self.deviations,
        )
        length = read.sum(read.along.square()).sqrt()
        sign = torch.where(self._negative(read), -length, length)
        pull = _kept(memory, "pull", (self.clients, read.axis.shape[1]))
        best = read.axis * sign[:, None]
        pull[view.clients] = pull[view.clients] * self.earlier + best
        return {**memory, "pull": pull}

    def _negative(self, read: rank_one.Told) -> Tensor:
        """Clients whose axis points away from their vector, (clients,).

        A rating is its row's error / s plus score * s, of the vector's length s, and
        ratings are positive. Whichever of the two has a mean tells.
        """
        score = (read.axis[read.sender] * read.item_row).sum(1)
        told = [
            read.sum(part) / read.sum(part.square()).sqrt().clamp_min(1e-30)
            for part in (read.along, score)
        ]
        return told[0] + told[1] < 0

    def vectors(self, memory: State) -> tuple[Tensor, Tensor]:
        return _directions(memory)


@dataclass(frozen=True)
class OfTable:
    """The server's own table of users, and how clients changed their rows."""

    row: UserRow
    clients: int

    @property
    def name(self) -> str:
        return self.row.table

    def held(self, memory: State, view: ServerView) -> State:
        table: Tensor = view.model[self.name]
        return {**memory, "table": table.double()}

    def sent(self, memory: State, view: UploadsView) -> State:
        table, seen = memory["table"].clone(), _kept(memory, "seen", (self.clients, 1))
        up, upload = view.uploads, self.name.removeprefix(SERVER)
        change = up.users[upload].double()
        if self.row.over_weight and up.weight is not None:
            change = change * up.weight[:, None]
        if upload in up.rest:
            table[view.clients] *= up.rest[upload][:, None]
        table[view.clients] += change
        seen[view.clients] = 1.0
        return {**memory, "table": table, "seen": seen}

    def vectors(self, memory: State) -> tuple[Tensor, Tensor]:
        if "seen" not in memory:
            return _nothing()
        seen = memory["seen"][:, 0].nonzero()[:, 0]
        return seen, memory["table"][seen]


def _directions(memory: State) -> tuple[Tensor, Tensor]:
    """Clients that were pulled anywhere, and where to, of length one."""
    if "pull" not in memory:
        return _nothing()
    length = torch.linalg.vector_norm(memory["pull"], dim=1, keepdim=True)
    told = (length[:, 0] > 0).nonzero()[:, 0]
    return told, memory["pull"][told] / length[told]


def _kept(memory: State, name: str, size: tuple[int, int]) -> Tensor:
    """What is remembered of every client; zeros before the first upload."""
    known = memory.get(name)
    return torch.zeros(size, dtype=torch.float64) if known is None else known.clone()


def _nothing() -> tuple[Tensor, Tensor]:
    return torch.zeros(0, dtype=torch.int64), torch.zeros(0, 0, dtype=torch.float64)
