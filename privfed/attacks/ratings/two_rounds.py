"""Ratings in closed form from a client's two consecutive uploads.

Chai et al. show that two uploads of SFMF determine a client's ratings, and solve for
them. An upload tells its ratings but for the length s of the user vector; between two
uploads the vector turns by what its own ratings moved it, known but for s as well, and
both directions are seen: s^2 follows by one division. Where the vector moves with every
rating its turns within one upload tell s already.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from privfed.adversary import Attack, Prior
from privfed.attacks.ratings.products import OfProducts
from privfed.attacks.ratings.real import (
    EXACT,
    Public,
    add,
    empty,
    received,
    settle,
    told_by,
)
from privfed.attacks.reading import rank_one
from privfed.attacks.reading.in_turn import turning
from privfed.attacks.reading.rank_one import Lines, Told, kept, pull, upright
from privfed.interfaces import State
from privfed.surfaces import Pass
from privfed.views import ServerView, UploadsView, View


@dataclass(frozen=True)
class RatingTwoRounds(OfProducts):
    """Rating recovery from two consecutive uploads of a client, without a search.

    The server knows each model that it sent, the learning rate and the regularizer.
    What it reads off every pair of uploads is averaged; an upload whose axis does not
    stand out of the noise is left aside. Where a client sends every row, only those
    that stand ``deviations`` out of the noise are taken for rated. Under several local
    steps it takes them for one long one. Ratings are rounded to the grid.
    """

    paper = "Chai et al., IEEE Intelligent Systems 2020; closed form: this project"

    def start(self, prior: Prior) -> State:
        nobody = torch.zeros(0, dtype=torch.int64)
        nothing = torch.zeros(0, dtype=torch.float64)
        each = torch.zeros(prior.clients, dtype=torch.float64)
        return {
            **empty(prior),
            "axis": torch.zeros(prior.clients, 0, dtype=torch.float64),
            "pull": torch.zeros(prior.clients, 0, dtype=torch.float64),
            "kept": each,
            "noise": each.clone(),
            "clear": torch.zeros(prior.clients, dtype=torch.bool),
            "last_client": nobody,
            "last_item": nobody.clone(),
            "last_first": nothing,
            "last_second": nothing.clone(),
        }

    def prepare(self, prior: Prior) -> Attack:
        return _Ready(self.deviations, public=Public.of(prior))


@dataclass(frozen=True)
class _Ready(RatingTwoRounds):
    """The attack on methods and scales that are known."""

    public: Public = field(kw_only=True)

    def observe(self, memory: State, view: View) -> State:
        if isinstance(view, ServerView):
            return _wide(received(memory, view, self.public))
        assert isinstance(view, UploadsView)
        clients = view.uploads.clients
        memory["seen"][clients] = True
        told = told_by(memory, view, self.public, self.deviations)
        how = self.public.method.pass_(view.round)
        read = _each if how.moves == "each" else _paired
        return read(memory, clients, told, how, self.public)


def _wide(memory: State) -> State:
    """The memory with room for vectors, whose width the first model tells."""
    if memory["axis"].shape[1]:
        return memory
    size = len(memory["seen"]), memory["table"].shape[1]
    room = {name: memory["noise"].new_zeros(size) for name in ("axis", "pull")}
    return {**memory, **room}


def _each(
    memory: State, clients: Tensor, told: Told, how: Pass, public: Public
) -> dict[str, Tensor]:
    """Rows that make a chain tell all; of others there is the axis, as elsewhere."""
    found = turning(told, how, public.span + 1)
    settle(memory, clients, found.chained, public)
    sender, rating = found.told.sender, found.rating()
    sure = found.chained.double() / EXACT**2
    told = replace(told, clear=told.clear & ~found.chained)
    after = add(
        memory, clients, (sender, found.told.item), rating, sure[sender], public
    )
    return _paired(after, clients, told, how, public)


def _paired(
    memory: State, clients: Tensor, told: Told, how: Pass, public: Public
) -> dict[str, Tensor]:
    """Each client's upload beside the one before it."""
    now = _Upload.of(told, how)
    before = _Upload.kept_of(memory, clients)
    if how.moves == "each":  # between their means, half of each upload's moves
        moved = (before.pull + now.pull) / 2
        s, error = rank_one.length(now.axis, -moved, before.axis)
        told_of = now
    elif how.reads == "new":
        s, error = rank_one.length(now.axis, -now.pull, before.axis)
        told_of = now
    else:
        off = before.axis * before.kept[:, None]
        s, error = rank_one.length(off, before.pull, now.axis)
        told_of = before
    known = public.weight(told_of.noise, s, error)
    known = torch.where(before.clear & now.clear, known, 0.0)
    rating = upright(told_of.lines.at(s[told_of.sender]), told_of.sender, len(clients))
    pairs = told_of.sender, told_of.item
    after = add(memory, clients, pairs, rating, known[told_of.sender], public)
    return now.keep(after, clients)


@dataclass(frozen=True, eq=False)
class _Upload:
    """What is kept of an upload of some clients until their next one."""

    axis: Tensor  # (clients, width)
    pull: Tensor  # (clients, width)
    kept: Tensor  # (clients,) what weight decay leaves of the vector
    noise: Tensor  # (clients,)
    clear: Tensor  # (clients,) bool: there is an axis
    sender: Tensor  # (rows,) position among the clients
    item: Tensor  # (rows,)
    lines: Lines

    @classmethod
    def of(cls, told: Told, how: Pass) -> "_Upload":
        left = torch.full_like(told.noise, kept(how))
        mean = replace(how, reads="old") if how.moves == "each" else how
        lines = rank_one.lines(told, mean)
        moved = pull(told, how)
        where = told.sender, told.item
        return cls(told.axis, moved, left, told.noise, told.clear, *where, lines)

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
            memory["clear"][clients],
            sender[mine],
            memory["last_item"][mine],
            Lines(first, second),
        )

    def keep(self, memory: State, clients: Tensor) -> dict[str, Tensor]:
        """The memory with this as the clients' last upload."""
        for name in ("axis", "pull", "kept", "noise", "clear"):
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
