"""What travels in one round: uploads go up, and one total comes out of them.

An upload holds *deltas*, the client's tensors after local training minus those it
received, so a row that is not sent did not move.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

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


@dataclass(frozen=True)
class Uploads:
    """What leaves the devices in one round.

    Position k of every dense tensor, and every row whose sender is k, came
    from ``clients[k]``. ``weight`` is the FedAvg weight that a client sends in
    the clear; without it every client counts 1 and no weight is sent.
    ``scale`` is public, not sent: the learning rate by which a delta is minus
    the gradient accumulated over local steps.
    """

    clients: Tensor  # (clients,)
    rows: Mapping[str, Rows] = field(default_factory=dict)
    dense: Mapping[str, Tensor] = field(default_factory=dict)  # (clients, ...)
    weight: Tensor | None = None  # (clients,)
    scale: Mapping[str, float] = field(default_factory=dict)

    def bytes_up(self, items: int) -> Tensor:
        """Bytes each client sends, (clients,).

        A table goes as (id, row) pairs, or whole where that is shorter.
        """
        count = len(self.clients)
        total = torch.zeros(count, dtype=torch.int64)
        for rows in self.rows.values():
            row = rows.value.shape[1] * rows.value.element_size()
            sent = torch.bincount(rows.sender, minlength=count)
            total += (sent * (ID_BYTES + row)).clamp_max(items * row)
        for value in self.dense.values():
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
