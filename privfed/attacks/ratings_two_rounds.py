"""Ratings in closed form from a client's two consecutive uploads.

Chai et al. show that two uploads of SFMF determine a client's ratings, and solve for
them. An upload tells its ratings but for the length s of the user vector; between two
uploads the vector turns by what its own ratings moved it, known but for s as well, and
both directions are seen: s^2 follows by one division. Where the vector moves with every
rating its turns within one upload tell s already.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from privfed.adversary import Attack, Prior
from privfed.attacks import rank_one
from privfed.attacks.in_turn import turning
from privfed.attacks.rank_one import Lines, Told, kept, pull, upright
from privfed.attacks.ratings_real import (
    add,
    claims,
    empty,
    open_questions,
    pass_of,
    settle,
)
from privfed.checks import positive
from privfed.guesses import Ratings
from privfed.interfaces import InnerProduct, Method, Pass, State
from privfed.views import ServerView, UploadsView, View

NO_PRODUCT = "reads ratings that are inner products of a private and an item's vector"
_LARGEST = 5.0  # what ratings are taken to span where no scale is known
EXACT = 1e-6  # deviation of a rating that nothing disturbs
ADAM = "Adam's steps on the device do not tell how large an error is"


def misfit(method: Method) -> str:
    """Why rows of a method's uploads are not errors times a user vector."""
    if not isinstance(method, InnerProduct):
        return NO_PRODUCT
    return ADAM if method.pass_(0).optimizer == "adam" else ""


@dataclass(frozen=True)
class RatingTwoRounds(Attack):
    """Rating recovery from two consecutive uploads of a client, without a search.

    The server knows each model that it sent, the learning rate and the regularizer.
    What it reads off every pair of uploads is averaged; an upload whose axis does not
    stand out of the noise is left aside. Where a client sends every row, only those
    that stand ``deviations`` out of the noise are taken for rated. Under several local
    steps it takes them for one long one. Ratings are rounded to the grid.
    """

    deviations: float = 3.0

    sees = (UploadsView, ServerView)
    tasks = ("rating",)
    recovers = "ratings"
    paper = "Chai et al., IEEE Intelligent Systems 2020; closed form: this project"

    def __post_init__(self) -> None:
        positive(self, "deviations")

    def misfit(self, method: Method) -> str:
        return misfit(method)

    def start(self, prior: Prior) -> State:
        nobody = torch.zeros(0, dtype=torch.int64)
        nothing = torch.zeros(0, dtype=torch.float64)
        each = torch.full((prior.clients,), torch.inf, dtype=torch.float64)
        return {
            **empty(prior),
            "axis": torch.zeros(prior.clients, 0, dtype=torch.float64),
            "pull": torch.zeros(prior.clients, 0, dtype=torch.float64),
            **{name: each.clone() for name in ("kept", "noise", "spread")},
            "last_client": nobody,
            "last_item": nobody.clone(),
            "last_first": nothing,
            "last_second": nothing.clone(),
        }

    def observe(self, memory: State, view: View) -> State:
        if isinstance(view, ServerView):
            return _wide(received(memory, view))
        assert isinstance(view, UploadsView)
        how, up = pass_of(memory, view.round), view.uploads
        memory["seen"][up.clients] = True
        told = rank_one.read(
            up.rows[how.table],
            len(up.clients),
            memory["table"],
            how,
            up.scale[how.table],
            self.deviations,
        )
        if how.moves == "each":
            return _each(memory, up.clients, told, how)
        return _paired(memory, up.clients, told, how)

    def guess(self, memory: State, prior: Prior) -> Ratings:
        return claims(memory, prior)


def received(memory: State, view: ServerView) -> dict[str, Tensor]:
    """The memory with the item rows that this round's clients get."""
    table = view.model[pass_of(memory, view.round).table]
    return {**memory, "table": table.clone()}  # checkpoints share no memory


def _wide(memory: State) -> State:
    """The memory with room for vectors, whose width the first model tells."""
    if memory["axis"].shape[1]:
        return memory
    size = len(memory["seen"]), memory["table"].shape[1]
    room = {name: memory["spread"].new_zeros(size) for name in ("axis", "pull")}
    return {**memory, **room}


def largest(memory: State) -> float:
    """A bound on the errors that a client can make."""
    low, high, _ = memory["scale"].tolist()
    return high - low + 1 if high > low else _LARGEST


def weight(noise: Tensor, s: Tensor, turned: Tensor, memory: State) -> Tensor:
    """One over the variance of a client's ratings, (clients,); 0 where it is too much.

    ``turned`` is the relative error of s^2.
    """
    low, high, _ = memory["scale"].tolist()
    size = max(abs(low), abs(high)) or _LARGEST
    variance = (noise / s).square() + (turned * size / 2).square() + EXACT**2
    useful = variance.sqrt() < (high - low or _LARGEST) / 4
    return torch.where(useful & variance.isfinite(), 1 / variance, 0.0)


def _each(memory: State, clients: Tensor, told: Told, how: Pass) -> dict[str, Tensor]:
    """Rows that make a chain tell all; of others there is the axis, as elsewhere."""
    told = open_questions(memory, clients, told)
    found = turning(told, how, largest(memory))
    settle(memory, clients, found.chained)
    sender, rating = found.told.sender, found.rating()
    sure = found.chained.double() / EXACT**2
    told = replace(told, clear=told.clear & ~found.chained)
    after = add(memory, clients, (sender, found.told.item), rating, sure[sender])
    return _paired(after, clients, told, how)


def _paired(memory: State, clients: Tensor, told: Told, how: Pass) -> dict[str, Tensor]:
    """Each client's upload beside the one before it."""
    now = _Upload.of(told, how)
    before = _Upload.kept_of(memory, clients)
    if how.moves == "each":  # between their means, half of each upload's moves
        moved = (before.pull + now.pull) / 2
        s, turn = rank_one.length(now.axis, -moved, before.axis)
        told_of = now
    elif how.reads == "new":
        s, turn = rank_one.length(now.axis, -now.pull, before.axis)
        told_of = now
    else:
        off = before.axis * before.kept[:, None]
        s, turn = rank_one.length(off, before.pull, now.axis)
        told_of = before
    turned = (before.spread + now.spread) / turn
    known = weight(told_of.noise, s, turned, memory)
    rating = upright(told_of.lines.at(s[told_of.sender]), told_of.sender, len(clients))
    pairs = told_of.sender, told_of.item
    after = add(memory, clients, pairs, rating, known[told_of.sender])
    return now.keep(after, clients)


@dataclass(frozen=True, eq=False)
class _Upload:
    """What is kept of an upload of some clients until their next one."""

    axis: Tensor  # (clients, width)
    pull: Tensor  # (clients, width)
    kept: Tensor  # (clients,) what weight decay leaves of the vector
    noise: Tensor  # (clients,)
    spread: Tensor  # (clients,) of the axis; infinite where nothing is known
    sender: Tensor  # (rows,) position among the clients
    item: Tensor  # (rows,)
    lines: Lines

    @classmethod
    def of(cls, told: Told, how: Pass) -> "_Upload":
        loud = told.sum(told.along.square()).sqrt()
        spread = told.noise * told.axis.shape[1] ** 0.5 / loud
        left = torch.full_like(told.noise, kept(how))
        spread = torch.where(told.clear, spread, torch.inf)
        mean = replace(how, reads="old") if how.moves == "each" else how
        lines = rank_one.lines(told, mean)
        moved = pull(told, how)
        where = told.sender, told.item
        return cls(told.axis, moved, left, told.noise, spread, *where, lines)

    @classmethod
    def kept_of(cls, memory: State, clients: Tensor) -> "_Upload":
        """The last upload of some clients."""
        place = torch.full_like(memory["uploads"], -1)
        place[clients] = torch.arange(len(clients), device=clients.device)
        sender = place[memory["last_client"]]
        mine = sender >= 0
        first, second = memory["last_first"][mine], memory["last_second"][mine]
        return cls(
            memory["axis"][clients],
            memory["pull"][clients],
            memory["kept"][clients],
            memory["noise"][clients],
            memory["spread"][clients],
            sender[mine],
            memory["last_item"][mine],
            Lines(first, second),
        )

    def keep(self, memory: State, clients: Tensor) -> dict[str, Tensor]:
        """The memory with this as the clients' last upload."""
        for name in ("axis", "pull", "kept", "noise", "spread"):
            memory[name][clients] = getattr(self, name)
        new = torch.ones_like(memory["seen"])
        new[clients] = False
        others = new[memory["last_client"]]
        rows = {
            "client": clients[self.sender],
            "item": self.item,
            "first": self.lines.first,
            "second": self.lines.second,
        }
        last = {
            f"last_{name}": torch.cat([memory[f"last_{name}"][others], value])
            for name, value in rows.items()
        }
        return {**memory, **last}
