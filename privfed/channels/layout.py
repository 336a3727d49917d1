"""An upload as one flat vector of integers, for channels that only ever add.

A client multiplies by its weight first, and the weight itself travels inside. The
vector holds all that the total needs: a 1 that counts the client, the weight, every row
of every table with a mark for rows sent, dense tensors, what is left of decayed rows,
and last the table of users, one row for each client of the cohort. Its order follows
from public facts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite, prod
from typing import Literal

import torch
from torch import Tensor

from privfed.channels.fixed_point import FixedPoint, OverBound, finest
from privfed.errors import PrivfedError, SettingsError
from privfed.interfaces import Opening
from privfed.messages import Total, Uploads

Kind = Literal["count", "weight", "table", "senders", "dense", "rest", "users"]


@dataclass(frozen=True)
class Bounds:
    """Largest absolute value of a number in an upload, and largest weight.

    A weight of 0 stands for as many as there are items: a client has no more pairs.
    A number is counted in units of its tensor's public scale, where it has one: as a
    gradient and not as the step that a learning rate made of it.
    """

    number: float
    weight: float


@dataclass(frozen=True)
class Segment:
    """Where one tensor of the total lies, and how its numbers are encoded."""

    kind: Kind
    name: str
    start: int
    shape: tuple[int, ...]  # in the total; users: (cohort, width)
    encoding: FixedPoint
    dtype: torch.dtype

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def stop(self) -> int:
        return self.start + self.size


@dataclass(frozen=True)
class Layout:
    """The places of a round's vector, the same for all of its clients.

    Numbers before ``shared`` are everybody's. After it, a client's numbers are zero
    but in its own rows of users, at ``own(position)``.
    """

    segments: tuple[Segment, ...]
    clients: Tensor  # (cohort,) ascending
    population: int
    bounds: Bounds

    @property
    def length(self) -> int:
        return self.segments[-1].stop

    @property
    def shared(self) -> int:
        return next((s.start for s in self.segments if s.kind == "users"), self.length)

    @property
    def terms(self) -> int:
        """How many uploads a sum may hold: one of each client."""
        return len(self.clients)

    @property
    def plain_numbers(self) -> int:
        """How many numbers one client would send in the clear, whole tables."""
        told = (s for s in self.segments if s.kind not in ("count", "senders"))
        return sum(s.shape[1] if s.kind == "users" else s.size for s in told)

    def positions(self, clients: Tensor) -> Tensor:
        """Places of clients in the cohort; raises PrivfedError where one is not in."""
        at = torch.searchsorted(self.clients, clients).clamp_max(self.terms - 1)
        if not torch.equal(self.clients[at], clients):
            raise PrivfedError("an upload came from a client outside of the cohort")
        return at

    def own(self, position: int) -> Iterator[tuple[int, int]]:
        """(start, stop) of a client's own rows of users."""
        for s in self.segments:
            if s.kind == "users":
                width = s.shape[1]
                start = s.start + position * width
                yield start, start + width

    def pack(self, uploads: Uploads) -> Tensor:
        """Each client's vector, (clients, length) int64.

        Raises SettingsError where a number or a weight is over its bound, and
        PrivfedError where one is no number.
        """
        count = len(uploads.clients)
        device = uploads.clients.device
        vectors = torch.zeros(count, self.length, dtype=torch.int64, device=device)
        at = self.positions(uploads.clients)
        for segment in self.segments:
            place = vectors[:, segment.start : segment.stop]
            try:
                _fill(place, segment, uploads, at)
            except OverBound as error:
                raise self._refusal(segment, error.largest) from None
        return vectors

    def _refusal(self, segment: Segment, largest: float) -> PrivfedError:
        what, over = segment.name or "weight", largest / segment.encoding.bound
        if not isfinite(largest):
            return PrivfedError(
                f"an upload's {what} is not finite: training diverged; lower the "
                "learning rate"
            )
        if segment.kind in ("weight", "rest"):
            return SettingsError(
                f"a client's {what} is {largest:.6g}, over the largest weight of "
                f"{segment.encoding.bound:g} that fits; give the channel "
                f"largest_weight={_power(largest)}"
            )
        return SettingsError(
            f"an upload holds {largest:.6g} in {what} (times the client's weight), "
            f"over the {segment.encoding.bound:.6g} that fits; give the channel "
            f"bound={_power(over * self.bounds.number)}, or lower the learning rate"
        )

    def unpack(self, sums: Tensor, clients: int, noise: int = 0) -> Total:
        """The total of so many clients' vectors, from their sum (length,) int64.

        ``noise`` is how far a sum may be off. Raises PrivfedError where the sum cannot
        be one of that many clients.
        """
        found: dict[Kind, dict[str, Tensor]] = {}
        for s in self.segments:
            value = s.encoding.decode(sums[s.start : s.stop], clients, noise)
            value = value if s.dtype.is_floating_point else value.round()
            there = found.setdefault(s.kind, {})
            there[s.name] = value.to(s.dtype).reshape(s.shape)
        if int(found["count"][""]) != clients:
            raise PrivfedError(
                f"a sum holds {int(found['count'][''])} uploads where {clients} were "
                "sent: it was changed on the way; do not use it"
            )
        weight = found.get("weight", found["count"])[""]
        return Total(
            found.get("table", {}),
            found.get("senders", {}),
            found.get("dense", {}),
            float(weight),
            clients,
            {n: self._spread(rows) for n, rows in found.get("users", {}).items()},
            found.get("rest", {}),
        )

    def _spread(self, rows: Tensor) -> Tensor:
        """The cohort's rows of users as rows of the whole population's table."""
        table = rows.new_zeros(self.population, rows.shape[1])
        table[self.clients.to(rows.device)] = rows
        return table


def layout_of(
    uploads: Uploads, opening: Opening, bounds: Bounds, capacity: int
) -> Layout:
    """The layout of a round, from any of its shards.

    No sum over the cohort exceeds ``capacity``, and every number is as fine as that
    allows. An unweighted client counts 1.
    """
    largest = bounds.weight or float(opening.shape.items)
    weight = 1.0 if uploads.weight is None else largest
    clients = opening.clients.sort().values
    terms, segments, start = len(clients), list[Segment](), 0
    for kind, name, shape, dtype in _tensors(uploads, opening.shape.items, terms):
        number = bounds.number * uploads.scale.get(name, 1.0)
        coded = finest(_bound(kind, number, weight), terms, capacity)
        segment = Segment(kind, name, start, shape, coded, dtype)
        segments.append(segment)
        start = segment.stop
    return Layout(tuple(segments), clients, opening.shape.clients, bounds)


def _bound(kind: Kind, number: float, weight: float) -> float:
    if kind in ("count", "senders"):
        return 1.0
    return weight if kind in ("weight", "rest") else number * weight


def _tensors(
    uploads: Uploads, items: int, cohort: int
) -> Iterator[tuple[Kind, str, tuple[int, ...], torch.dtype]]:
    yield "count", "", (), torch.int64
    if uploads.weight is not None:
        yield "weight", "", (), torch.float64
    for name, rows in sorted(uploads.rows.items()):
        yield "table", name, (items, rows.value.shape[1]), rows.value.dtype
        yield "senders", name, (items,), torch.int64
    for name, value in sorted(uploads.dense.items()):
        yield "dense", name, tuple(value.shape[1:]), value.dtype
    for name, value in sorted(uploads.rest.items()):
        yield "rest", name, (), value.dtype
    for name, value in sorted(uploads.users.items()):
        yield "users", name, (cohort, value.shape[1]), value.dtype


def _weighted(value: Tensor, uploads: Uploads) -> Tensor:
    """Values times their client's weight, in double so that nothing rounds twice."""
    if uploads.weight is None:
        return value
    weight = uploads.weight.double()
    return value * weight.view(-1, *[1] * (value.dim() - 1))


def _power(least: float) -> str:
    """The power of two at or above a number."""
    power = 1.0
    while power < least:
        power *= 2
    return f"{power:g}"


def _fill(place: Tensor, segment: Segment, uploads: Uploads, at: Tensor) -> None:
    """Write one segment of each client's vector, (clients, size), in place."""
    name, count, encode = segment.name, len(place), segment.encoding.encode
    if segment.kind == "users":
        own = torch.arange(count, device=place.device)
        value = encode(_weighted(uploads.users[name], uploads))
        place.view(count, *segment.shape)[own, at] = value
    elif segment.kind in ("table", "senders"):
        rows = uploads.rows[name]
        table = place.view(count, *segment.shape)
        table[rows.sender, rows.item] = encode(_of_rows(segment, uploads))
    else:
        value = _of_clients(segment, uploads, count)
        place[:] = encode(value.reshape(count, -1))


def _of_rows(segment: Segment, uploads: Uploads) -> Tensor:
    rows = uploads.rows[segment.name]
    if segment.kind == "senders":
        return torch.ones(1, device=rows.value.device)
    if uploads.weight is None:
        return rows.value
    return rows.value * uploads.weight.double()[rows.sender, None]


def _of_clients(segment: Segment, uploads: Uploads, count: int) -> Tensor:
    if segment.kind == "dense":
        return _weighted(uploads.dense[segment.name], uploads)
    if segment.kind == "rest":
        return _weighted(uploads.rest[segment.name], uploads)
    if segment.kind == "weight" and uploads.weight is not None:
        return uploads.weight
    return torch.ones(count, device=uploads.clients.device)
