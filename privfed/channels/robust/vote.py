"""One round's uploads, combined by a rule over whole uploads or item by item."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.channels.robust import distances
from privfed.channels.robust.groups import (
    NUMBERS,
    ByItem,
    equal,
    similar,
    some,
)
from privfed.channels.robust.order import mean
from privfed.messages import Uploads

# (groups, picked, width) and how many there were to pick from, to (groups, width)
Combine = Callable[[Tensor, int], Tensor]
# distances (groups, room, room) and counts (groups,), to picked (groups, room) bool
Pick = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Rule:
    """Who is picked, if not everybody, and how those are combined."""

    combine: Combine
    pick: Pick | None = None


MEAN = Rule(lambda x, _: mean(x))


@dataclass(frozen=True)
class Sums:
    """What a round's uploads come to, times the number of clients that sent it."""

    tables: Mapping[str, Tensor]  # (items, width)
    dense: Mapping[str, Tensor]
    rest: Mapping[str, Tensor]  # ()


def by_upload(uploads: Uploads, items: int, rule: Rule) -> Sums:
    """A client's whole upload is one vector; a row that it did not send is zero."""
    voters, kept = len(uploads.clients), uploads
    if rule.pick:
        distance = distances.between_uploads(uploads, items)[None]
        picked = rule.pick(distance, torch.tensor([voters], device=distance.device))
        kept = some(uploads, picked[0].nonzero()[:, 0])
    tables = {
        name: voters
        * _with_zeros(ByItem.of(rows, items), len(kept.clients), voters, rule)
        for name, rows in kept.rows.items()
    }
    return _sums(uploads, tables, voters * _columns(distances.flat(kept), voters, rule))


def by_item(uploads: Uploads, items: int, rule: Rule) -> Sums:
    """Each item is a vote among the clients that sent its row.

    What is no table of items is one vector a client, and one vote of all clients.
    """
    tables = {
        name: _among_senders(ByItem.of(rows, items), rule)
        for name, rows in uploads.rows.items()
    }
    x = kept = distances.flat(uploads)
    if rule.pick and x.shape[1]:
        distance = distances.between_vectors(x)[None]
        picked = rule.pick(distance, torch.tensor([len(x)], device=x.device))
        kept = x[picked[0]]
    return _sums(uploads, tables, len(x) * _columns(kept, len(x), rule))


def _sums(uploads: Uploads, tables: Mapping[str, Tensor], vector: Tensor) -> Sums:
    """``vector`` back as the tensors that ``distances.flat`` laid end to end."""
    parts = [*uploads.dense.items(), *uploads.rest.items()]
    shapes = [value.shape[1:] for _, value in parts]
    pieces = torch.split(vector, [shape.numel() for shape in shapes])
    back = [
        (name, piece.view(shape))
        for (name, _), piece, shape in zip(parts, pieces, shapes, strict=True)
    ]
    count = len(uploads.dense)
    return Sums(tables, dict(back[:count]), dict(back[count:]))


def _columns(x: Tensor, voters: int, rule: Rule) -> Tensor:
    """The clients' vectors (clients, width) as one vector (width,)."""
    parts = torch.split(x, max(1, NUMBERS // max(1, len(x))), 1)
    return torch.cat([rule.combine(part[None], voters)[0] for part in parts])


def _with_zeros(table: ByItem, count: int, voters: int, rule: Rule) -> Tensor:
    """Every item's row, (items, width), where each of ``count`` clients has one."""
    found = table.value.new_zeros(len(table.counts), table.width)
    for size, groups in equal(table.counts, lambda _: count * table.width):
        at = table.places(groups, size)
        x = found.new_zeros(len(groups), count, table.width)
        x[torch.arange(len(groups), device=at.device)[:, None], table.sender[at]] = (
            table.value[at]
        )
        found[groups] = rule.combine(x, voters)
    return found


def _among_senders(table: ByItem, rule: Rule) -> Tensor:
    """Every item's row times the number of clients that sent it, (items, width)."""
    kept = table.keeping(_picked(table, rule.pick)) if rule.pick else table
    found = table.value.new_zeros(len(table.counts), table.width)
    for voters, groups in equal(table.counts, lambda n: n * table.width):
        size = int(kept.counts[groups[0]])  # as many of equally many are kept
        x = kept.value[kept.places(groups, size)]
        found[groups] = voters * rule.combine(x, voters)
    return found


def _picked(table: ByItem, pick: Pick) -> Tensor:
    """Which rows are picked by their distances to the others of their item, (rows,)."""
    picked = torch.ones(len(table.sender), dtype=torch.bool, device=table.value.device)
    for room, groups in similar(table.counts):
        counts = table.counts[groups]
        real = torch.arange(room, device=counts.device) < counts[:, None]
        at = torch.where(real, table.places(groups, room), 0)
        value = torch.where(real[..., None], table.value[at], 0.0)
        found = pick(distances.within(value), counts)
        picked[at[real]] = found[real]
    return picked
