"""What travels in one round: uploads go up, and one total comes out of them.

An upload holds *deltas*, the client's tensors after local training minus those it
received, so a row that is not sent did not move.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from privfed.data.world import Shape

ID_BYTES = 4  # an item id travels as 32 bits


@dataclass(frozen=True)
class Rows:
    """Rows of an item table, from several clients, laid end to end.

    The client at position ``sender[i]`` of the cohort sent ``value[i]`` for
    item ``item[i]``. A client sends an item at most once, and ``sender`` ascends.
    """

    sender: Tensor  # (rows,)
    item: Tensor  # (rows,)
    value: Tensor  # (rows, width)

    @property
    def row_bytes(self) -> int:
        """Bytes of one value."""
        return self.value.shape[1] * self.value.element_size()


def summed(sender: Tensor, item: Tensor, value: Tensor, items: int) -> Rows:
    """Rows by sender, then item, so that their order tells nothing; repeats add up."""
    pairs, back = torch.unique(sender * items + item, return_inverse=True)
    table = value.new_zeros(len(pairs), value.shape[1]).index_add_(0, back, value)
    return Rows(pairs // items, pairs % items, table)


def every(value: Tensor) -> Rows:
    """Whole tables (clients, items, width) as rows."""
    clients, items, _ = value.shape
    device = value.device
    return Rows(
        torch.arange(clients, device=device).repeat_interleave(items),
        torch.arange(items, device=device).repeat(clients),
        value.flatten(0, 1),
    )


def everywhere(rows: Rows, clients: int, items: int) -> Rows:
    """The same rows with a zero row for every item that a client did not send."""
    value = rows.value.new_zeros(clients, items, rows.value.shape[1])
    value[rows.sender, rows.item] = rows.value
    return every(value)


@dataclass(frozen=True)
class Uploads:
    """What leaves the devices in one round.

    Position k of every dense tensor, and every row whose sender is k, came
    from ``clients[k]``. ``weight`` is the FedAvg weight that a client sends in
    the clear; without it every client counts 1 and no weight is sent.
    ``users`` holds each client's own row of a table of users that the server keeps.
    ``packed`` says how many bytes a client sends for a tensor that travels in fewer
    than its numbers take.
    ``rest`` is, for a table sent whole, the factor by which weight decay shrank every
    row that training left alone; a delta of that table is then the row minus ``rest``
    times the row received. ``scale`` is public, not sent: the learning rate by which
    a delta is minus the gradient accumulated over local steps.
    """

    clients: Tensor  # (clients,)
    rows: Mapping[str, Rows] = field(default_factory=dict)
    dense: Mapping[str, Tensor] = field(default_factory=dict)  # (clients, ...)
    weight: Tensor | None = None  # (clients,)
    scale: Mapping[str, float] = field(default_factory=dict)
    users: Mapping[str, Tensor] = field(default_factory=dict)  # (clients, width)
    rest: Mapping[str, Tensor] = field(default_factory=dict)  # (clients,)
    packed: Mapping[str, Tensor] = field(default_factory=dict)  # (clients,)

    def bytes_up(self, shape: Shape) -> Tensor:
        """Bytes each client sends, (clients,).

        A table goes as (id, row) pairs, or whole where that is shorter or where all
        of its rows shrank.
        """
        count = len(self.clients)
        total = torch.zeros(count, dtype=torch.int64)
        for size in self.packed.values():
            total += size.to(total)
        for name, rows in self.rows.items():
            if name in self.packed:
                continue
            row = rows.row_bytes
            if name in self.rest:
                total += shape.items * row
                continue
            sent = torch.bincount(rows.sender, minlength=count)
            total += (sent * (ID_BYTES + row)).clamp_max(shape.items * row)
        for name, value in self.users.items():
            if name in self.packed:
                continue
            row = value.shape[1] * value.element_size()
            total += shape.clients * row if name in self.rest else row
        for name, value in self.dense.items():
            if name not in self.packed:
                total += value[:1].numel() * value.element_size()
        if self.weight is not None:
            total += self.weight.element_size()
        return total


@dataclass(frozen=True)
class Total:
    """One round's uploads combined: the only thing a method learns from.

    Everything is a weighted sum over clients; ``weight`` is the sum of the
    weights and ``senders`` counts the clients that sent each row.
    """

    tables: Mapping[str, Tensor]  # (items, width)
    senders: Mapping[str, Tensor]  # (items,)
    dense: Mapping[str, Tensor]
    weight: float
    clients: int
    users: Mapping[str, Tensor] = field(default_factory=dict)  # (all clients, width)
    rest: Mapping[str, Tensor] = field(default_factory=dict)  # ()


@dataclass(frozen=True)
class Spent:
    """What carrying one round's uploads took, over all clients.

    ``bytes_down`` is beyond the model. Seconds are processor seconds. ``other`` holds
    costs of parties that only some channels have, by the name they are reported under.
    """

    bytes_up: int = 0
    bytes_down: int = 0
    client_seconds: float = 0.0
    server_seconds: float = 0.0
    other: Mapping[str, float] = field(default_factory=dict)


def join(parts: Sequence[Uploads]) -> Uploads:
    """Uploads of several shards as one, in the order given."""
    first = parts[0]
    if len(parts) == 1:
        return first
    counts = torch.tensor([len(part.clients) for part in parts])
    base = (counts.cumsum(0) - counts).tolist()

    def rows(name: str) -> Rows:
        tables = [part.rows[name] for part in parts]
        sender = [t.sender + at for t, at in zip(tables, base, strict=True)]
        return Rows(
            torch.cat(sender),
            torch.cat([table.item for table in tables]),
            torch.cat([table.value for table in tables]),
        )

    weights = [part.weight for part in parts if part.weight is not None]
    return Uploads(
        torch.cat([part.clients for part in parts]),
        {name: rows(name) for name in first.rows},
        {n: torch.cat([part.dense[n] for part in parts]) for n in first.dense},
        torch.cat(weights) if weights else None,
        first.scale,
        {n: torch.cat([part.users[n] for part in parts]) for n in first.users},
        {n: torch.cat([part.rest[n] for part in parts]) for n in first.rest},
        {n: torch.cat([part.packed[n] for part in parts]) for n in first.packed},
    )


def unmoved(form: Uploads, clients: Tensor) -> Uploads:
    """Uploads of the same form from other clients, in which nothing moved."""

    def still(values: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {n: v.new_zeros(len(clients), *v.shape[1:]) for n, v in values.items()}

    def first(value: Tensor) -> Tensor:
        return value[:1].expand(len(clients))

    return Uploads(
        clients,
        {n: Rows(r.sender[:0], r.item[:0], r.value[:0]) for n, r in form.rows.items()},
        still(form.dense),
        None if form.weight is None else first(form.weight),
        form.scale,
        still(form.users),
        {name: first(value) for name, value in form.rest.items()},
        {name: first(value) for name, value in form.packed.items()},
    )


def reordered(uploads: Uploads, order: Tensor) -> Uploads:
    """The same uploads with the clients in another order."""
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)

    def rows(table: Rows) -> Rows:
        sender, at = place[table.sender].sort(stable=True)
        return Rows(sender, table.item[at], table.value[at])

    def each(values: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {name: value[order] for name, value in values.items()}

    return replace(
        uploads,
        clients=uploads.clients[order],
        rows={name: rows(table) for name, table in uploads.rows.items()},
        dense=each(uploads.dense),
        weight=None if uploads.weight is None else uploads.weight[order],
        users=each(uploads.users),
        rest=each(uploads.rest),
        packed=each(uploads.packed),
    )
