"""A shard's records, padded by client, and what an episode takes of them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.data.cohort import Cohort
from privfed.data.world import Pairs
from privfed.devices.batches import bucket, padded
from privfed.seeds import Stream


@dataclass(frozen=True, eq=False)
class Records:
    """Places in what a cohort or its pairs hold, end to end; padding is not real."""

    at: Tensor  # (clients, records)
    real: Tensor  # (clients, records) bool

    @property
    def share(self) -> Tensor:
        """Each record's share of its client's mean loss, (clients, records)."""
        return self.real / self.real.sum(1, keepdim=True).clamp_min(1)

    def of(self, value: Tensor) -> Tensor:
        """Each record's value, 0 where padded: (clients, records, ...)."""
        if not len(value):
            return value.new_zeros(*self.at.shape, *value.shape[1:])
        real = self.real.view(*self.real.shape, *[1] * (value.dim() - 1))
        return value[self.at].where(real, value.new_zeros(()))


def all_of(pairs: Cohort | Pairs, clients: int) -> Records:
    """Every record of each client, in its order; padded by the largest's bucket."""
    counts = torch.bincount(pairs.sender, minlength=clients)
    width = padded(int(bucket(counts).max()))
    start = counts.cumsum(0) - counts
    place = torch.arange(width, device=counts.device)
    real = place < counts[:, None]
    return Records((start[:, None] + place).where(real, 0), real)


@dataclass(frozen=True)
class Taking:
    """How many records an episode takes, and how it splits them.

    ``records`` at most, of a client with few the ``share`` of them; the first
    ``support`` of these, in the client's order, are support, the rest query.
    """

    records: int
    share: float
    support: float

    def taken(self, counts: Tensor) -> Tensor:
        """Records that clients of so many take: two or more where they have them."""
        part = (counts * self.share + 1e-9).long().clamp(min=2)
        return torch.minimum(part, counts).clamp(max=self.records)

    def supports(self, taken: Tensor) -> Tensor:
        """How many of so many are support; one is left to ask, where two are taken."""
        part = (taken * self.support + 0.5 + 1e-9).long()
        return torch.minimum(part, taken - 1).clamp(min=1).minimum(taken)

    def batch(self, every: Records, clients: Tensor, stream: Stream) -> Records:
        """Records drawn without replacement, in the client's order."""
        taken = self.taken(every.real.sum(1))
        return _sorted(every, clients, taken, self._room(every), stream)

    def episode(
        self, every: Records, clients: Tensor, stream: Stream
    ) -> tuple[Records, Records]:
        """Drawn records, split into support and query."""
        drawn = self.batch(every, clients, stream)
        taken = drawn.real.sum(1)
        support, room = self.supports(taken), self._room(every)
        most = padded(min(room, int(room * self.support) + 2))
        asked = padded(min(room, int(room * (1 - self.support)) + 2))
        return _part(drawn, torch.zeros_like(support), support, most), _part(
            drawn, support, taken - support, asked
        )

    def _room(self, every: Records) -> int:
        """Most records that a client of this padded size takes."""
        width = torch.tensor([every.at.shape[1]])
        return padded(int(self.taken(width)))


def _sorted(
    every: Records, clients: Tensor, taken: Tensor, room: int, stream: Stream
) -> Records:
    width = every.at.shape[1]
    key = _shuffle(every, clients, stream)
    place = torch.arange(width, device=clients.device)
    drawn = key.masked_fill(place >= taken[:, None], width).sort(1).values[:, :room]
    return _pick(every, drawn.clamp(max=width - 1), drawn < width)


def _shuffle(every: Records, clients: Tensor, stream: Stream) -> Tensor:
    """Places of each client's records in random order, padding last."""
    place = torch.arange(every.at.shape[1], device=clients.device)
    key = stream.bits(clients[:, None], place[None])
    return key.masked_fill(~every.real, 2**63 - 1).argsort(dim=1, stable=True)


def _part(drawn: Records, start: Tensor, count: Tensor, room: int) -> Records:
    place = torch.arange(room, device=start.device)
    at = (start[:, None] + place).clamp(max=drawn.at.shape[1] - 1)
    return _pick(drawn, at, place < count[:, None])


def _pick(every: Records, place: Tensor, real: Tensor) -> Records:
    return Records(every.at.gather(1, place).where(real, 0), real)


def shuffled(every: Records, clients: Tensor, stream: Stream) -> Records:
    """The same records, each client's in random order."""
    order = _shuffle(every, clients, stream)
    return _pick(every, order, every.real.gather(1, order))


def shuffled_batches(
    every: Records, clients: Tensor, size: int, stream: Stream
) -> Iterator[Records]:
    """One pass over all records in batches; who has no more of them has none real."""
    mixed = shuffled(every, clients, stream)
    for start in range(0, mixed.at.shape[1], size):
        part = slice(start, start + size)
        yield Records(mixed.at[:, part], mixed.real[:, part])
