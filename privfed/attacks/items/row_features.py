"""A few numbers of each row that a client sent, alike for every client."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.attacks.reading.axis import by_client, principal
from privfed.interfaces import State
from privfed.messages import Rows

_POWER = 30  # iterations for the axis
_FAR = 1e6


@dataclass(frozen=True, eq=False)
class Features:
    """Rows of some clients in numbers, by client and then by item.

    For each table: the row along the client's principal axis, in units of its usual
    row; the cosine with the axis, which the faintest rows have too; the row as it was
    received along the axis, in units of the table; the row's length, as the first.
    """

    sender: Tensor  # (pairs,)
    item: Tensor  # (pairs,)
    value: Tensor  # (pairs, tables, 4)
    client: (
        Tensor  # (clients, e) float64: how many rows, how long, how much on the axis
    )

    def turned(self, sign: Tensor) -> Tensor:
        """With each client's axes turned by sign (clients, tables), (pairs, d)."""
        by_number = torch.stack([sign, sign, sign, torch.ones_like(sign)], 2)
        return (self.value * by_number[self.sender]).flatten(1)


def features(
    tables: Mapping[str, Rows], model: State, clients: int, items: int
) -> Features:
    """Of every item that a client sent in any table; a row that is missing is zero."""
    keys = [rows.sender * items + rows.item for rows in tables.values()]
    pairs = torch.unique(torch.cat(keys))
    sender, item = pairs // items, pairs % items
    count = torch.bincount(sender, minlength=clients).double()
    value = torch.zeros(len(pairs), len(tables), 4)
    told = [count.log1p()]
    for k, (name, key) in enumerate(zip(tables, keys, strict=True)):
        rows = tables[name]
        along, axis, explained = principal(rows, clients, _POWER)
        length = torch.linalg.vector_norm(rows.value, dim=1).double()
        squares = by_client(length.square(), rows.sender, clients)
        usual = (squares / count.clamp_min(1)).sqrt().clamp_min(1e-30)
        scale = usual[rows.sender]
        before = (model[name][rows.item] * axis[rows.sender]).sum(1)
        told_of_row = (
            along / scale,
            along / length.clamp_min(1e-30),
            before / model[name].std().clamp_min(1e-30),
            length / scale,
        )
        at = torch.searchsorted(pairs, key)
        value[at, k] = torch.stack(told_of_row, 1).float()
        told += [usual.log(), explained.double()]
    return Features(sender, item, value.clamp(-_FAR, _FAR), torch.stack(told, 1))
