"""The first uploads of some clients, beside what each client had been sent.

A memory of tensors. ``upload.client`` and ``upload.round`` say whose and when;
``upload.held.N`` is a dense tensor before training, ``upload.moved.N`` what it moved
by; ``upload.scale.N`` is the upload's public scale of a tensor.
``row.upload`` and ``row.item`` name each row that was sent, ``row.held.T`` and
``row.moved.T`` are its values in table T. ``model.*`` is the model of this round.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from privfed.adversary import Prior
from privfed.interfaces import START, State
from privfed.messages import Uploads
from privfed.views import ModelView, UploadsView, View

_MODEL = "model."


def begin(prior: Prior) -> State:
    """Nothing seen yet; and the order in which clients are preferred."""
    clients = torch.arange(prior.clients)
    turn = prior.stream.of("victims").bits(clients, torch.zeros_like(clients))
    names = ("upload.client", "upload.round", "row.upload", "row.item")
    return {"turn": turn, **{name: clients[:0].clone() for name in names}}


def observed(memory: State, view: View, victims: int, each: int) -> State:
    """Remember a round's model, and what ``victims`` of its clients sent."""
    if isinstance(view, ModelView):
        return received(memory, view)
    assert isinstance(view, UploadsView)
    return sent(memory, view, victims, each)


def received(memory: State, view: ModelView) -> State:
    """Remember the model of a round."""
    rest = {name: v for name, v in memory.items() if not name.startswith(_MODEL)}
    return rest | {_MODEL + name: value.clone() for name, value in view.model.items()}


def sent(memory: State, view: UploadsView, victims: int, each: int) -> State:
    """Keep a shard's uploads of the preferred clients, the first ``each`` of them.

    In the end these are the ``victims`` most preferred of all clients that were seen,
    whatever the order of shards.
    """
    turn, client = memory["turn"], memory["upload.client"]
    seen = torch.unique(torch.cat([client, view.clients]))
    chosen = seen[turn[seen].argsort()[:victims]]
    had = torch.bincount(client, minlength=len(turn))[view.clients]
    new = torch.isin(view.clients, chosen) & (had < each)
    if not new.any():
        return memory
    old = _only(memory, torch.isin(client, chosen))
    found = _found(memory, view.uploads, new, view.round)
    found["row.upload"] = found["row.upload"] + len(old["upload.client"])
    both = {n: torch.cat([old.get(n, v[:0]), v]) for n, v in found.items()}
    return {**old, **both}


def _only(memory: State, stay: Tensor) -> State:
    """The memory of some uploads."""
    if bool(stay.all()):
        return memory
    rows = stay[memory["row.upload"]]
    kept = dict(memory)
    for name, value in memory.items():
        if name.startswith("upload."):
            kept[name] = value[stay]
        elif name.startswith("row."):
            kept[name] = value[rows]
    kept["row.upload"] = (stay.cumsum(0) - 1)[kept["row.upload"]]
    return kept


def _found(
    memory: State, uploads: Uploads, new: Tensor, round: int
) -> dict[str, Tensor]:
    """What some of a shard's uploads add; a row that a table lacks did not move."""
    place, items = new.cumsum(0) - 1, int(memory["turn"].new_tensor(2**31))
    tables = {n: t for n, t in uploads.rows.items() if _MODEL + n in memory}
    keys = {n: t.sender * items + t.item for n, t in tables.items()}
    key = torch.unique(torch.cat([*keys.values(), new.nonzero()[:0, 0]]))
    key = key[new[key // items]]
    clients = uploads.clients[new]
    found = {
        "upload.client": clients,
        "upload.round": torch.full_like(clients, round),
        "row.upload": place[key // items],
        "row.item": key % items,
    }
    for name, table in tables.items():
        mine = new[table.sender]
        at = torch.searchsorted(key, keys[name][mine])
        held = memory[_MODEL + name][key % items]
        moved = torch.zeros_like(held)
        moved[at] = table.value[mine].to(moved)
        found |= {f"row.held.{name}": held, f"row.moved.{name}": moved}
    for name, held in _model(memory).items():
        if name.endswith(START):
            found[f"row.held.{name}"] = held[key % items]
        elif name not in tables:
            found[f"upload.held.{name}"] = held.expand(len(clients), *held.shape)
        if name in uploads.dense:
            found[f"upload.moved.{name}"] = uploads.dense[name][new]
    for name, scale in uploads.scale.items():
        found[f"upload.scale.{name}"] = memory["turn"].new_full(
            clients.shape, scale, dtype=torch.float64
        )
    return found


def _model(memory: State) -> State:
    """The model of this round."""
    return {
        name.removeprefix(_MODEL): value
        for name, value in memory.items()
        if name.startswith(_MODEL)
    }


@dataclass(frozen=True, eq=False)
class Sent:
    """One upload of each of some victims."""

    here: Tensor  # (victims,) bool: whether there is such an upload
    round: Tensor  # (victims,) -1 where there is none
    real: Tensor  # (victims, samples) bool: rows that were sent
    rows: Mapping[str, Tensor]  # (victims, samples, width): held, by table; and starts
    rows_moved: Mapping[str, Tensor]
    shared: Mapping[str, Tensor]  # (victims, ...): held
    shared_moved: Mapping[str, Tensor]
    scale: Mapping[str, Tensor]  # (victims,)

    def of(self, at: Tensor) -> "Sent":
        """The uploads of some of the victims."""

        def each(values: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
            return {name: value[at] for name, value in values.items()}

        return Sent(
            self.here[at],
            self.round[at],
            self.real[at],
            each(self.rows),
            each(self.rows_moved),
            each(self.shared),
            each(self.shared_moved),
            each(self.scale),
        )


@dataclass(frozen=True, eq=False)
class Victims:
    """Some clients, the items that they sent, and their uploads in their order."""

    clients: Tensor  # (victims,) ascending
    item: Tensor  # (victims, samples), 0 where padded
    real: Tensor  # (victims, samples) bool
    uploads: tuple[Sent, ...]

    def groups(self, cells: int) -> Iterator["Victims"]:
        """Victims that sent in the same rounds, alike in size, so many samples each."""
        if not len(self.clients):
            return
        rounds = torch.stack([sent.round for sent in self.uploads], 1)
        _, which = torch.unique(rounds, dim=0, return_inverse=True)
        count = self.real.sum(1)
        for k in range(int(which.max()) + 1):
            mine = (which == k).nonzero()[:, 0]
            mine = mine[count[mine].argsort(descending=True, stable=True)]
            while len(mine):
                size = int(count[mine[0]])
                many = max(1, cells // max(1, size))
                yield self.of(mine[:many].sort().values, size)
                mine = mine[many:]

    def of(self, at: Tensor, size: int) -> "Victims":
        """Some of the victims, none of which sent more than ``size`` items."""

        def cut(sent: Sent) -> Sent:
            mine = sent.of(at)
            rows = {n: v[:, :size] for n, v in mine.rows.items()}
            moved = {n: v[:, :size] for n, v in mine.rows_moved.items()}
            real = mine.real[:, :size]
            return replace(mine, real=real, rows=rows, rows_moved=moved)

        return Victims(
            self.clients[at],
            self.item[at, :size],
            self.real[at, :size],
            tuple(cut(sent) for sent in self.uploads if bool(sent.here[at].any())),
        )


def victims(memory: State, dtype: torch.dtype = torch.float64) -> Victims:
    """All that is remembered, laid out by victim."""
    client, at = memory["upload.client"], memory["row.upload"]
    clients, owner = torch.unique(client, return_inverse=True)
    many = 2**31
    pair = owner[at] * many + memory["row.item"]
    key, place = torch.unique(pair, return_inverse=True)
    count = torch.bincount(key // many, minlength=len(clients))
    start = count.cumsum(0) - count
    size = (len(clients), int(count.max()) if len(count) else 0)
    column = torch.arange(len(key), device=key.device) - start[key // many]
    item, real = key.new_zeros(size), torch.zeros(size, dtype=torch.bool)
    item[key // many, column], real[key // many, column] = key % many, True
    order = _order(owner, memory["upload.round"])
    turns = int(order.max()) + 1 if len(order) else 0
    spots = (owner[at], column[place])
    uploads = tuple(
        _sent(memory, order == k, owner, spots, real, dtype) for k in range(turns)
    )
    return Victims(clients, item, real, uploads)


def _order(owner: Tensor, round: Tensor) -> Tensor:
    """Whether an upload is its client's first, second, ...: (uploads,)."""
    by = (owner * 2**31 + round).argsort()
    count = torch.bincount(owner)
    start = (count.cumsum(0) - count)[owner[by]]
    out = torch.empty_like(owner)
    out[by] = torch.arange(len(by), device=by.device) - start
    return out


def _sent(
    memory: State,
    mine: Tensor,
    owner: Tensor,
    spots: tuple[Tensor, Tensor],
    real: Tensor,
    dtype: torch.dtype,
) -> Sent:
    """The uploads marked, one of each victim at most."""
    rows = mine[memory["row.upload"]]
    at = spots[0][rows], spots[1][rows]

    def table(value: Tensor) -> Tensor:
        out = value.new_zeros(*real.shape, value.shape[1], dtype=dtype)
        out[at] = value[rows].to(dtype)
        return out

    def dense(value: Tensor) -> Tensor:
        out = value.new_zeros(len(real), *value.shape[1:], dtype=dtype)
        out[owner[mine]] = value[mine].to(dtype)
        return out

    here = torch.zeros_like(real[:, 0])
    here[owner[mine]] = True
    round = memory["upload.round"].new_full((len(real),), -1)
    round[owner[mine]] = memory["upload.round"][mine]
    sent_rows = torch.zeros_like(real)
    sent_rows[at] = True

    def of(prefix: str) -> Mapping[str, Tensor]:
        read = table if prefix.startswith("row.") else dense
        return {
            name.removeprefix(prefix): read(value)
            for name, value in memory.items()
            if name.startswith(prefix)
        }

    return Sent(
        here,
        round,
        sent_rows,
        of("row.held."),
        of("row.moved."),
        of("upload.held."),
        of("upload.moved."),
        of("upload.scale."),
    )
