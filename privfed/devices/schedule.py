"""When each client of a shard trains on which sample, in lockstep.

Every client takes its own steps one after the other; those that take most come
first, so the ones that still train are always the first few.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.devices.batches import Samples, padded
from privfed.seeds import Stream

_LANES = 32  # samples of a step are padded to multiples: no ragged vector loop
_OWNER = 43  # bits of a draw that order samples; the client's position has the rest


@dataclass(frozen=True, eq=False)
class Step:
    """One step of the shard's first ``active`` clients.

    Samples are laid out (active, lanes), padded by samples of share 0. ``place`` is
    where a sample's gradient goes: its row for the first of equal samples in a
    batch, a row that stands for no item for all others. ``twice`` are those others
    among the samples, ``onto`` their firsts.
    """

    number: int
    active: int
    rows: int  # of the active clients together
    row: Tensor  # (active * lanes,)
    place: Tensor  # (active * lanes,)
    target: Tensor  # (active, lanes)
    share: Tensor  # (active, lanes) of the client's mean loss
    twice: Tensor  # (equals,)
    onto: Tensor  # (equals,)
    last: bool  # whether it is some client's last


@dataclass(frozen=True, eq=False)
class Schedule:
    """A shard's steps. Rows lie end to end, padded by client, as clients do."""

    clients: Tensor  # (clients,) position in the cohort, most steps first
    steps: Tensor  # (clients,) that each of them takes
    item: Tensor  # (rows,) 0 where padded
    sender: Tensor  # (rows,) position in the cohort
    real: Tensor  # (rows,) bool: not padding
    every: Sequence[Step]


@dataclass(frozen=True, eq=False)
class _Layout:
    """Where clients' rows and turns lie; clients are positions in the cohort."""

    order: Tensor  # (clients,) most steps first
    rank: Tensor  # (clients,) its inverse
    room: Tensor  # (clients,) padded rows, by rank
    start: Tensor  # (clients,) first row, by rank
    steps: Tensor  # (clients,) by rank
    active: Tensor  # (all steps,) clients


@dataclass(frozen=True, eq=False)
class _Turns:
    """One entry for each sample and epoch."""

    client: Tensor
    epoch: Tensor
    position: Tensor  # in the client's shuffled epoch
    slot: Tensor
    target: Tensor


@dataclass(frozen=True, eq=False)
class _Flat:
    """The steps' tensors end to end; places count from the first step's start."""

    lanes: int
    row: Tensor
    place: Tensor
    target: Tensor
    share: Tensor
    twice: Tensor
    onto: Tensor


def schedule(
    samples: Samples, epochs: int, batch: int, stream: Stream, dtype: torch.dtype
) -> Schedule:
    """Shuffle each client's samples anew each epoch and cut them into batches.

    The samples may be of clients of several buckets: no client's part depends on the
    others'.
    """
    counts = samples.real.sum(1) * samples.slot.shape[2]
    layout = _layout(samples, -(-counts // batch) * epochs)
    sender = layout.order.repeat_interleave(layout.room)
    within = torch.arange(len(sender)) - layout.start.repeat_interleave(layout.room)
    inside = within.clamp_max(samples.item.shape[1] - 1)
    real = samples.rows[sender, inside] & (within == inside)
    item = samples.item[sender, inside].masked_fill(~real, 0)
    turns = _turns(samples, epochs, stream)
    steps = list(_cut(layout, _flat(layout, turns, counts, batch, dtype)))
    return Schedule(layout.order, layout.steps, item, sender, real, steps)


def _layout(samples: Samples, steps: Tensor) -> _Layout:
    order = steps.argsort(descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    touched = samples.rows.sum(1)[order]
    unique, back = torch.unique(touched, return_inverse=True)
    room = torch.tensor([padded(int(n) + 1) for n in unique])[back]  # 1 for no item
    steps = steps[order]
    done = torch.bincount(steps).cumsum(0)[:-1]
    return _Layout(order, rank, room, room.cumsum(0) - room, steps, len(order) - done)


def _turns(samples: Samples, epochs: int, stream: Stream) -> _Turns:
    real = samples.real[:, :, None].expand_as(samples.slot).flatten(1)
    client, column = real.nonzero(as_tuple=True)
    slot = samples.slot.flatten(1)[client, column]
    target = (column % samples.slot.shape[2] == 0).float()
    counts = real.sum(1)
    position = torch.arange(len(client)) - (counts.cumsum(0) - counts)[client]
    ids = samples.cohort.clients[client]
    orders = []
    for epoch in range(epochs):
        key = stream.of("epoch", epoch).bits(ids, column) >> (63 - _OWNER)
        orders.append((key + (client << _OWNER)).argsort(stable=True))
    order = torch.cat(orders) if orders else position[:0]
    return _Turns(
        client.repeat(epochs),
        torch.arange(epochs).repeat_interleave(len(client)),
        position.repeat(epochs),
        slot[order],
        target[order],
    )


def _flat(
    layout: _Layout, turns: _Turns, counts: Tensor, batch: int, dtype: torch.dtype
) -> _Flat:
    lanes = padded(batch, _LANES)
    rank, inside = layout.rank[turns.client], turns.position // batch
    size = (counts[turns.client] - inside * batch).clamp_max(batch)
    step = turns.epoch * -(-counts // batch)[turns.client] + inside
    blocks, base = int(layout.active.sum()), layout.active.cumsum(0) - layout.active
    at = (base[step] + rank) * lanes + turns.position % batch
    owner = torch.arange(blocks) - base.repeat_interleave(layout.active)
    nowhere = (layout.room.cumsum(0) - 1)[owner]  # (blocks,) a client's last row
    place = nowhere.repeat_interleave(lanes)
    row, target = place.clone(), torch.zeros(len(place), dtype=dtype)
    share = torch.zeros_like(target)
    row[at] = place[at] = layout.start[rank] + turns.slot
    target[at], share[at] = turns.target.to(dtype), 1 / size.to(dtype)
    twice, onto = _equals(at, row[at], lanes)
    place[twice] = nowhere[twice // lanes]
    return _Flat(lanes, row, place, target, share, twice, onto)


def _cut(layout: _Layout, flat: _Flat) -> Iterator[Step]:
    """The steps, as views."""
    lanes, active = flat.lanes, layout.active.tolist()
    sizes = [count * lanes for count in active]
    starts = (layout.active.cumsum(0) - layout.active) * lanes
    step = torch.arange(len(active)).repeat_interleave(layout.active)
    step = step[flat.twice // lanes]
    equals = torch.bincount(step, minlength=len(active)).tolist()
    return map(
        Step,
        range(len(active)),
        active,
        layout.room.cumsum(0)[layout.active - 1].tolist(),
        torch.split(flat.row, sizes),
        torch.split(flat.place, sizes),
        (part.view(-1, lanes) for part in torch.split(flat.target, sizes)),
        (part.view(-1, lanes) for part in torch.split(flat.share, sizes)),
        torch.split(flat.twice - starts[step], equals),
        torch.split(flat.onto - starts[step], equals),
        (now > then for now, then in zip(active, [*active[1:], 0], strict=True)),
    )


def _equals(at: Tensor, row: Tensor, lanes: int) -> tuple[Tensor, Tensor]:
    """Places of all but the first of equal samples in a batch, and of that first."""
    key = (at // lanes) * (int(row.max()) + 1 if len(row) else 1) + row
    key, order = key.sort(stable=True)
    at = at[order]
    index = torch.arange(len(key))
    new = torch.ones_like(key, dtype=torch.bool)
    new[1:] = key[1:] != key[:-1]
    first = torch.where(new, index, 0).cummax(0).values
    return at[~new], at[first[~new]]
