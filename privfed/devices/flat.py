"""A shard's samples laid end to end, with no padding.

For training that takes no product of matrices: every step is then an operation on
single rows, or a sum over a client's own rows one after the other, and a client's
numbers are the same whoever shares its shard.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from privfed.data.cohort import Cohort, part_of
from privfed.data.world import spans
from privfed.devices.batches import aligned, bucket
from privfed.devices.negatives import Negatives
from privfed.seeds import Stream

_KEPT = 2**23  # samples remembered at most: 128 MiB with their rows

with warnings.catch_warnings():  # torch says once that this layout is in beta
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0], [], [], (0, 0), check_invariants=False)


@dataclass(frozen=True, eq=False)
class Flat:
    """The rows that each client of a shard touches, and where its samples find them.

    ``item`` ascends within a client. ``place`` points every sample at its row, the
    positive first.
    """

    sender: Tensor  # (rows,) position in the shard, ascending
    item: Tensor  # (rows,)
    ends: Tensor  # (clients + 1,) where each client's rows begin, and where all end
    place: Tensor  # (positives, 1 + negatives)

    def of_item(self, table: Tensor) -> Tensor:
        """Each row's row of an item table, (rows, width)."""
        return table.index_select(0, self.item)

    def of_client(self, table: Tensor) -> Tensor:
        """Each row's client's row of a table of the shard, (rows, width)."""
        return table.index_select(0, self.sender)

    def products(self, x: Tensor, table: Tensor) -> Tensor:
        """Each row's inner product of its client's row and its item's, (rows,)."""
        size, none = (len(x), len(table)), x.new_zeros(len(self.item))
        wanted = torch.sparse_csr_tensor(
            self.ends, self.item, none, size, check_invariants=False
        )
        found: Tensor = torch.sparse.sampled_addmm(wanted, x, table.T, beta=0.0)
        return found.values()

    def uses(self, place: Tensor) -> Tensor:
        """How many of these samples use each row, (rows,)."""
        return torch.bincount(place.reshape(-1), minlength=len(self.item)).float()

    def combined(self, weight: Tensor, table: Tensor) -> Tensor:
        """Each client's weighted sum of its rows of an item table, (clients, width)."""
        return embedding_bag(
            self.item,
            table,
            self.ends,
            mode="sum",
            per_sample_weights=weight,
            include_last_offset=True,
        )

    def by_size(self) -> Iterator["Group"]:
        """Clients that touch any row, each padded to a size that is its own."""
        counts = self.ends.diff()
        sizes = bucket(counts)
        for size in torch.unique(sizes[counts > 0]).tolist():
            clients = ((sizes == size) & (counts > 0)).nonzero()[:, 0]
            within = torch.arange(size)
            real = within < counts[clients, None]
            at = (self.ends[clients, None] + within) * real
            yield Group(clients, at, real)


@dataclass(frozen=True, eq=False)
class Group:
    """Clients of a shard that are padded alike, and where their rows are."""

    clients: Tensor  # (group,) positions in the shard
    at: Tensor  # (group, size) rows, 0 where padded
    real: Tensor  # (group, size) bool: not padding


def flat_aligned(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply an elementwise function to samples laid end to end; see ``aligned``."""
    return aligned(function, x.reshape(1, -1)).view(x.shape)


def lay(cohort: Cohort, negatives: Negatives, stream: Stream) -> Flat:
    """Draw a shard's negatives and lay all samples out, client after client."""
    items, counts = cohort.shape.items, cohort.counts
    within = torch.arange(len(cohort.item)) - (counts.cumsum(0) - counts)[cohort.sender]
    drawn = negatives.drawn(cohort, within, stream)
    key = torch.cat([cohort.item[:, None], drawn], 1) + cohort.sender[:, None] * items
    pairs, place = torch.unique(key, return_inverse=True)
    sender = pairs // items
    ends = _ends(torch.bincount(sender, minlength=len(counts)))
    return Flat(sender, pairs % items, ends, place)


def laid_once(cohort: Cohort, negatives: Negatives, stream: Stream) -> Flat:
    """What ``lay`` returns, remembered for rounds whose stream is the same.

    For rules that look at nothing but a client's own training items.
    """
    shape, device = cohort.shape, cohort.item.device
    return _memory(negatives, stream, shape.clients, shape.items, device).of(cohort)


def _ends(counts: Tensor) -> Tensor:
    return pad(counts.cumsum(0), (1, 0))


@dataclass(frozen=True, eq=False)
class _Kept:
    """Layouts of many clients; those not here begin at -1."""

    item: Tensor  # (rows,)
    place: Tensor  # (positives, 1 + negatives) in the client's own rows
    first: Tensor  # (2, clients) where a client's rows begin, and its positives
    count: Tensor  # (2, clients)

    @classmethod
    def none(cls, clients: int, group: int) -> "_Kept":
        whole = torch.zeros(2, clients, dtype=torch.int64)
        nothing = torch.zeros(0, group, dtype=torch.int64)
        return cls(nothing[:, 0], nothing, whole - 1, whole)

    def of(self, clients: Tensor) -> Flat:
        """The layout of a shard whose clients are all here."""
        (row, positive), (rows, positives) = (
            self.first[:, clients],
            self.count[:, clients],
        )
        sender, at = spans(row, rows)
        owner, found = spans(positive, positives)
        ends = _ends(rows)
        place = self.place.index_select(0, found) + ends.index_select(0, owner)[:, None]
        return Flat(sender, self.item.index_select(0, at), ends, place)

    def beside(self, clients: Tensor, laid: Flat, positives: Tensor) -> "_Kept":
        """These and the layout of a shard of further clients."""
        owner = torch.repeat_interleave(positives)
        place = laid.place - laid.ends[owner, None]
        count = torch.stack([laid.ends.diff(), positives])
        first = count.cumsum(1) - count
        first += torch.tensor([[len(self.item)], [len(self.place)]])
        return _Kept(
            torch.cat([self.item, laid.item]),
            torch.cat([self.place, place]),
            self.first.index_copy(1, clients, first),
            self.count.index_copy(1, clients, count),
        )


class _Memory:
    """The layouts of clients seen, for as long as what they train on stays the same."""

    def __init__(self, negatives: Negatives, stream: Stream, clients: int) -> None:
        self._rule, self._lock = (negatives, stream), Lock()
        self._none = _Kept.none(clients, 1 + negatives.per_positive)
        self._kept = self._none

    def of(self, cohort: Cohort) -> Flat:
        kept = self._kept
        new = (kept.first[0, cohort.clients] < 0).nonzero()[:, 0]
        if len(new):
            if kept.place.numel() + len(cohort.item) > _KEPT:
                return lay(cohort, *self._rule)
            kept = self._learn(part_of(cohort, new))
        laid = kept.of(cohort.clients)
        if torch.equal(laid.item.index_select(0, laid.place[:, 0]), cohort.item):
            return laid
        self._kept = self._none
        return lay(cohort, *self._rule)

    def _learn(self, cohort: Cohort) -> _Kept:
        laid = lay(cohort, *self._rule)
        with self._lock:
            self._kept = self._kept.beside(cohort.clients, laid, cohort.counts)
            return self._kept


@lru_cache(maxsize=2)
def _memory(
    negatives: Negatives, stream: Stream, clients: int, *_: int | torch.device
) -> _Memory:
    """The memory of one rule and stream, of a catalog of one size, on one device."""
    return _Memory(negatives, stream, clients)
