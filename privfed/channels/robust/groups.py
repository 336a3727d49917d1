"""Rows by item, and groups of like size, a bounded number at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.messages import Rows, Uploads

NUMBERS = 1 << 22  # of one block: what a step works on stays below some 200 MB
CACHED = 1 << 16  # of a piece of it: what several passes go over stays in the cache


@dataclass(frozen=True)
class ByItem:
    """Rows laid end to end by item, those of an item in the order of their clients."""

    sender: Tensor  # (rows,)
    value: Tensor  # (rows, width)
    counts: Tensor  # (items,)
    starts: Tensor  # (items,)

    @classmethod
    def of(cls, rows: Rows, items: int) -> "ByItem":
        order = torch.argsort(rows.item, stable=True)
        counts = torch.bincount(rows.item, minlength=items)
        starts = counts.cumsum(0) - counts
        return cls(rows.sender[order], rows.value[order], counts, starts)

    @property
    def width(self) -> int:
        return self.value.shape[1]

    def places(self, groups: Tensor, size: int) -> Tensor:
        """Where the first ``size`` rows of each group lie, (groups, size)."""
        at = torch.arange(size, device=self.starts.device)
        return self.starts[groups, None] + at

    def keeping(self, kept: Tensor) -> "ByItem":
        """Without the rows that are not ``kept``, (rows,) bool."""
        owner = torch.repeat_interleave(
            torch.arange(len(self.counts), device=kept.device), self.counts
        )
        counts = torch.bincount(owner[kept], minlength=len(self.counts))
        starts = counts.cumsum(0) - counts
        return ByItem(self.sender[kept], self.value[kept], counts, starts)


def equal(
    counts: Tensor, numbers: Callable[[int], int]
) -> Iterator[tuple[int, Tensor]]:
    """Groups of equal size, as (size, groups); empty groups are left out.

    ``numbers`` says how many a group of some size has.
    """
    order = torch.argsort(counts, stable=True)
    sizes, how_many = torch.unique_consecutive(counts[order], return_counts=True)
    alike = torch.split(order, how_many.tolist())
    for size, groups in zip(sizes.tolist(), alike, strict=True):
        if size:
            for part in torch.split(groups, _together(numbers(size))):
                yield size, part


def similar(counts: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Groups of similar size, as (largest size, groups), for pairs within a group."""
    order = torch.argsort(counts, stable=True, descending=True)
    sizes, at = counts[order].tolist(), 0
    while at < len(sizes) and sizes[at]:
        room = sizes[at]
        end = at + _together(room * room)
        while end > at + 1 and sizes[min(end, len(sizes)) - 1] < room // 2:
            end = at + (end - at) // 2  # padding would be most of it
        yield room, order[at:end]
        at = end


def _together(numbers: int) -> int:
    return max(1, NUMBERS // max(1, numbers))


def in_cache(*blocks: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same groups of each block, a few at a time."""
    few = max(1, CACHED // max(1, blocks[0][:1].numel()))
    yield from zip(*(torch.split(block, few) for block in blocks), strict=True)


def in_client_order(uploads: Uploads) -> Uploads:
    """The same uploads, the client with the smallest id first."""
    order = torch.argsort(uploads.clients)
    return some(uploads, order)


def some(uploads: Uploads, positions: Tensor) -> Uploads:
    """The uploads at some positions, in the order given."""
    count = len(uploads.clients)
    place = torch.full((count,), -1, device=positions.device)
    place[positions] = torch.arange(len(positions), device=positions.device)

    def rows(table: Rows) -> Rows:
        sender = place[table.sender]
        order = torch.argsort(sender, stable=True)
        order = order[sender[order] >= 0]
        return Rows(sender[order], table.item[order], table.value[order])

    return Uploads(
        uploads.clients[positions],
        {name: rows(table) for name, table in uploads.rows.items()},
        {name: value[positions] for name, value in uploads.dense.items()},
        None if uploads.weight is None else uploads.weight[positions],
        uploads.scale,
        {name: value[positions] for name, value in uploads.users.items()},
        {name: value[positions] for name, value in uploads.rest.items()},
    )
