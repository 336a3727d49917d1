"""How a shard's samples are laid out for local training.

Everything is padded to (clients, samples). The padded size is a function of the
client alone, never of its neighbors in the shard, so that a client's arithmetic,
and therefore every result, is the same in any shard of one bucket. To the last bit
this holds for widths that are multiples of 4 numbers; BLAS looks at the alignment of
each client's matrix.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from privfed.data.cohort import Cohort
from privfed.devices.negatives import Negatives, draw
from privfed.seeds import Stream

LANE = 8  # rows are padded to multiples of this
_VECTOR = 32  # numbers that a vector loop takes at once


def padded(size: int, lane: int = LANE) -> int:
    """Round a size up to a multiple of ``lane``, coarser as it grows (an eighth)."""
    while lane * 8 < size:
        lane *= 2
    return max(1, -(-size // lane)) * lane


def aligned(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply an elementwise function to (clients, samples) with no ragged end.

    A vector loop's last few numbers take another path, with other bits; which
    client they belong to would depend on the shard.
    """
    size = x.shape[1]
    return function(pad(x, (0, -size % _VECTOR)))[:, :size]


def bucket(counts: Tensor) -> Tensor:
    """Padded positives of each client: clients of one shard share one bucket."""
    unique, back = torch.unique(counts, return_inverse=True)
    return torch.tensor([padded(int(u), 4) for u in unique], dtype=torch.int64)[back]


def coarse(counts: Tensor) -> Tensor:
    """Room for each client's positives, (clients,): the next power of 2, 64 at least.

    For shards in which no client is padded by another.
    """
    size: Tensor = 2 ** counts.clamp(min=64).double().log2().ceil().long()
    return size


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples of one local step.

    A sample stands for ``weight`` equal ones; padding has weight 0. ``slot`` says
    which local row a sample uses, None when sample k uses row k. ``size`` is what
    the client's mean loss divides by. ``epoch`` and ``start``, the place of the
    first sample in its epoch, number the step for draws made while training.
    """

    slot: Tensor | None  # (clients, samples)
    target: Tensor  # (clients, samples) in [0, 1]
    weight: Tensor  # (clients, samples)
    size: Tensor  # (clients, 1)
    item: Tensor  # (clients, samples)
    epoch: int = 0
    start: int = 0
    positive: Tensor | None = None  # (clients, positives) samples; -1 is padding

    @property
    def share(self) -> Tensor:
        """Each sample's share of its client's mean loss, (clients, samples)."""
        return self.weight / self.size

    def rows(self, table: Tensor) -> Tensor:
        """Each sample's row of a local table, (clients, samples, width)."""
        if self.slot is None:
            return table
        clients, width = len(table), table.shape[2]
        flat = (self.slot + _base(table))[..., None].expand(-1, -1, width)
        return (
            table.reshape(-1, width)
            .gather(0, flat.reshape(-1, width))
            .view(clients, -1, width)
        )


def _base(table: Tensor) -> Tensor:
    return torch.arange(len(table), device=table.device)[:, None] * table.shape[1]


@dataclass(frozen=True, eq=False)
class Samples:
    """A shard's positives and negatives of one round.

    ``item`` holds the rows that the shard touches, each client's once; ``slot``
    points every drawn sample at its row: (clients, positives, 1 + negatives), the
    positive first.
    """

    cohort: Cohort
    item: Tensor  # (clients, rows), 0 where padded
    rows: Tensor  # (clients, rows) bool: not padding
    slot: Tensor  # (clients, positives, 1 + negatives)
    real: Tensor  # (clients, positives) bool: not padding

    def full(self) -> Batch:
        """All samples as one batch; a sample drawn twice weighs twice."""
        clients, width = self.item.shape
        flat = (self.slot + torch.arange(clients)[:, None, None] * width).flatten(1)
        real = self.real[:, :, None].expand_as(self.slot).float()
        positive = torch.zeros_like(self.slot, dtype=torch.float32)
        positive[..., 0] = 1.0

        def count(what: Tensor) -> Tensor:
            out = torch.zeros(clients * width)
            return out.index_add_(0, flat.view(-1), what.reshape(-1)).view(clients, -1)

        weight, ones = count(real), count(real * positive)
        size = real.flatten(1).sum(1, keepdim=True).clamp_min(1)
        return Batch(
            None,
            ones / weight.clamp_min(1),
            weight,
            size,
            self.item,
            positive=self.slot[:, :, 0].masked_fill(~self.real, -1),
        )

    def mini(self, batch: int, stream: Stream, epoch: int) -> Iterator[Batch]:
        """Shuffled batches of ``batch`` samples; a client that is done weighs 0."""
        slot = self.slot.flatten(1)
        total = slot.shape[1]
        real = self.real[:, :, None].expand_as(self.slot).flatten(1)
        target = torch.zeros_like(self.slot, dtype=torch.float32)
        target[..., 0] = 1.0
        draws = stream.of("epoch", epoch)
        key = draws.bits(self.cohort.clients[:, None], torch.arange(total)[None])
        order = key.masked_fill(~real, 2**63 - 1).argsort(1)
        order = pad(order, (0, padded(total) - total), value=0)
        slot, target = slot.gather(1, order), target.flatten(1).gather(1, order)
        real = real.gather(1, order)
        real[:, total:] = False
        for start in range(0, int(real.sum(1).max()), batch):
            part = slice(start, start + batch)
            weight = real[:, part].float()
            size = weight.sum(1, keepdim=True).clamp_min(1)
            aim = target[:, part]
            yield Batch(
                slot[:, part],
                aim,
                weight,
                size,
                self.item.gather(1, slot[:, part]),
                epoch,
                start,
            )


def collect(cohort: Cohort, negatives: Negatives, stream: Stream) -> Samples:
    """Draw a shard's negatives and lay all samples out by client."""
    clients, items = len(cohort.clients), cohort.shape.items
    counts = cohort.counts
    starts = counts.cumsum(0) - counts
    within = torch.arange(len(cohort.item)) - starts[cohort.sender]
    width = int(bucket(counts).max())
    drawn = torch.cat(
        [cohort.item[:, None], draw(cohort, within, negatives, stream)], dim=1
    )
    real = torch.zeros(clients, width, dtype=torch.bool)
    real[cohort.sender, within] = True
    key = cohort.sender[:, None] * items + drawn
    touched = torch.zeros(clients * items, dtype=torch.bool)
    touched[key.view(-1)] = True
    pairs = touched.nonzero()[:, 0]  # ascending by client, then item
    owner, item = pairs // items, pairs % items
    per_client = torch.bincount(owner, minlength=clients)
    rank = torch.arange(len(pairs)) - (per_client.cumsum(0) - per_client)[owner]
    place = torch.zeros(clients * items, dtype=torch.int64)
    place[pairs] = rank
    room = padded(min(width * drawn.shape[1], items))
    rows = torch.zeros(clients, room, dtype=torch.bool)
    rows[owner, rank] = True
    table = torch.zeros(clients, room, dtype=torch.int64)
    table[owner, rank] = item
    slot = torch.zeros(clients, width, drawn.shape[1], dtype=torch.int64)
    slot[cohort.sender, within] = place[key]
    return Samples(cohort, table, rows, slot, real)
