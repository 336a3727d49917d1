"""Terms that a defense adds to the loss of local training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from privfed.devices.gradients import Local


@dataclass(frozen=True, eq=False)
class Own:
    """What a term reads of one item table on the devices of a shard."""

    table: str
    rows: Tensor  # (clients, rows, width): as they are now
    received: Tensor  # (clients, rows, width): as the server sent them
    item: Tensor  # (clients, rows)
    samples: Tensor  # (clients, rows): how many samples use a row; padding has 0
    user: Tensor | None = None  # (clients, width): what scores these very rows


class Penalty:
    """A term of each client's loss that depends on its item rows and user vector.

    A term gives its gradient, or it says where its own step would lead (``settle``).
    """

    anchored: ClassVar[bool] = False  # no gradient at what was received

    def rows(self, own: Own) -> Tensor | None:
        """Gradient by the item rows, (clients, rows, width); None where it is zero."""
        return None

    def user(self, own: Own) -> Tensor | None:
        """Gradient by the user vector, (clients, width); None where it is zero."""
        return None

    def settle(self, own: Own, rate: float) -> Tensor:
        """The item rows after an implicit step of a learning rate."""
        return own.rows


@dataclass(frozen=True, eq=False)
class Terms:
    """A round's penalties, laid beside what a shard trains.

    ``received`` holds the tables that are penalized; ``readers`` names for a table
    the private vector, or layer of one output, that scores its rows.
    """

    penalties: Sequence[Penalty]
    received: Mapping[str, Tensor]  # (clients, rows, width)
    item: Tensor  # (clients, rows)
    samples: Tensor  # (clients, rows)
    readers: Mapping[str, str]

    def gradients(self, local: Local, steps: Tensor) -> "Pull":
        """What all terms pull at, as things stand, of the clients that ``steps`` marks.

        A client that is done with its batches takes no step, whoever is beside it.
        """
        rows: dict[str, Tensor] = {}
        users: dict[str, Tensor] = {}
        for table in self.received:
            own = self._own(local, table)
            for penalty in self.penalties:
                _add(rows, table, penalty.rows(own))
                if own.user is not None:
                    _add(users, self.readers[table], penalty.user(own))
        taken = steps.float()[:, None]
        return Pull(
            {name: gradient * taken[..., None] for name, gradient in rows.items()},
            {name: gradient * taken for name, gradient in users.items()},
        )

    def settle(self, local: Local, rates: Mapping[str, float], steps: Tensor) -> None:
        """Take every term's implicit step, in place, for the clients marked."""
        for table in self.received:
            for penalty in self.penalties:
                own = self._own(local, table)
                settled = penalty.settle(own, rates[table])
                local.rows[table] = settled.where(steps[:, None, None], own.rows)

    def _own(self, local: Local, table: str) -> Own:
        reader = self.readers.get(table)
        user = None if reader is None else _vector(local, reader)
        received = self.received[table]
        rows = local.rows[table]
        return Own(table, rows, received, self.item, self.samples, user)


@dataclass(frozen=True, eq=False)
class Pull:
    """The gradients of all terms at one step."""

    rows: Mapping[str, Tensor]  # (clients, rows, width)
    users: Mapping[str, Tensor]  # (clients, width)

    def step(self, local: Local, rates: Mapping[str, float]) -> None:
        """Move against them, in place."""
        for name, gradient in self.rows.items():
            local.rows[name].sub_(gradient, alpha=rates[name])
        for name, gradient in self.users.items():
            _vector(local, name).sub_(gradient, alpha=rates[name])


def _vector(local: Local, name: str) -> Tensor:
    """A private vector, or the weights of a layer of one output: (clients, width)."""
    if name in local.dense:
        return local.dense[name]
    return local.dense[f"{name}.weight"][:, 0]


def _add(sums: dict[str, Tensor], name: str, value: Tensor | None) -> None:
    if value is not None:
        sums[name] = sums[name] + value if name in sums else value
