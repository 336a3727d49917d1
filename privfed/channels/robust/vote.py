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
class Votes:
    """How many votes each client cast, and how many of those were not picked."""

    cast: Tensor  # (clients,)
    dropped: Tensor  # (clients,)

    @classmethod
    def of(cls, sender: Tensor, picked: Tensor, clients: int) -> "Votes":
        """Of votes (votes,) and whether each was picked."""
        cast = torch.bincount(sender, minlength=clients)
        return cls(cast, cast - torch.bincount(sender[picked], minlength=clients))

    def __add__(self, more: "Votes") -> "Votes":
        return Votes(self.cast + more.cast, self.dropped + more.dropped)


@dataclass(frozen=True)
class Sums:
    """What a round's uploads come to, times the number of clients that sent it.

    ``votes`` is None where a rule picks nobody.
    """

    tables: Mapping[str, Tensor]  # (items, width)
    dense: Mapping[str, Tensor]
    rest: Mapping[str, Tensor]  # ()
    votes: Votes | None = None


def by_upload(uploads: Uploads, items: int, rule: Rule) -> Sums:
    """A client's whole upload is one vector; a row that it did not send is zero."""
    voters, kept, votes = len(uploads.clients), uploads, None
    if rule.pick:
        picked = _of_all(rule.pick, distances.between_uploads(uploads, items))
        kept = some(uploads, picked.nonzero()[:, 0])
        votes = Votes(torch.ones_like(uploads.clients), (~picked).long())
    tables = {
        name: voters
        * _with_zeros(ByItem.of(rows, items), len(kept.clients), voters, rule)
        for name, rows in kept.rows.items()
    }
    vector = voters * _columns(distances.flat(kept), voters, rule)
    return _sums(uploads, tables, vector, votes)


def by_item(uploads: Uploads, items: int, rule: Rule) -> Sums:
    """Each item is a vote among the clients that sent its row.

    What is no table of items is one vector a client, and one vote of all clients.
    """
    tables, votes = {}, None
    for name, rows in uploads.rows.items():
        table = ByItem.of(rows, items)
        picked = _picked(table, rule.pick) if rule.pick else None
        tables[name] = _among_senders(table, picked, rule)
        votes = _counted(votes, table.sender, picked, len(uploads.clients))
    x = kept = distances.flat(uploads)
    if rule.pick and x.shape[1]:
        picked = _of_all(rule.pick, distances.between_vectors(x))
        kept = x[picked]
        everybody = torch.arange(len(x), device=x.device)
        votes = _counted(votes, everybody, picked, len(x))
    return _sums(uploads, tables, len(x) * _columns(kept, len(x), rule), votes)


def _of_all(pick: Pick, distance: Tensor) -> Tensor:
    """Who is picked where all clients vote together, (clients,) bool."""
    everybody = torch.tensor([len(distance)], device=distance.device)
    return pick(distance[None], everybody)[0]


def _counted(
    votes: Votes | None, sender: Tensor, picked: Tensor | None, clients: int
) -> Votes | None:
    """The votes so far and some more."""
    if picked is None:
        return votes
    more = Votes.of(sender, picked, clients)
    return votes + more if votes else more


def _sums(
    uploads: Uploads,
    tables: Mapping[str, Tensor],
    vector: Tensor,
    votes: Votes | None,
) -> Sums:
    """``vector`` back as the tensors that ``distances.flat`` laid end to end."""
    parts = [*uploads.dense.items(), *uploads.rest.items()]
    shapes = [value.shape[1:] for _, value in parts]
    pieces = torch.split(vector, [shape.numel() for shape in shapes])
    back = [
        (name, piece.view(shape))
        for (name, _), piece, shape in zip(parts, pieces, shapes, strict=True)
    ]
    count = len(uploads.dense)
    return Sums(tables, dict(back[:count]), dict(back[count:]), votes)


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


def _among_senders(table: ByItem, picked: Tensor | None, rule: Rule) -> Tensor:
    """Every item's row times the number of clients that sent it, (items, width)."""
    kept = table if picked is None else table.keeping(picked)
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
