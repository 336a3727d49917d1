"""Rows that are worked out when somebody reads them.

Where a client takes one step on inner products, a row that it sends is a number times
its own vector plus a number times the item's row. A server that only adds rows up adds
the numbers, and never needs the rows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.messages import Rows

_RUN = 8192  # rows computed at a time: they stay in the processor's own memory


@dataclass(frozen=True, eq=False)
class Parts:
    """Row i is a[i] times its sender's row of x plus b[i] times its item's of table."""

    x: Tensor  # (clients, width)
    a: Tensor  # (rows,)
    table: Tensor  # (items, width)
    b: Tensor  # (rows,)

    def value(self, sender: Tensor, item: Tensor) -> Tensor:
        """The rows, (rows, width)."""
        out = self.x.new_empty(len(item), self.x.shape[1])
        for start in range(0, len(item), _RUN):
            run = slice(start, start + _RUN)
            mine = self.x.index_select(0, sender[run]).mul_(self.a[run, None])
            rows = self.table.index_select(0, item[run]).mul_(self.b[run, None])
            torch.add(mine, rows, out=out[run])
        return out


class Mixed(Rows):
    """Rows known by their parts; those given a value are rows like any other."""

    parts: Parts | None

    def __init__(
        self,
        sender: Tensor,
        item: Tensor,
        value: Tensor | None = None,
        parts: Parts | None = None,
    ) -> None:
        known = {"sender": sender, "item": item, "parts": parts}
        if value is not None:
            known["value"] = value
        self.__dict__.update(known)

    def __getattr__(self, name: str) -> Tensor:
        """``value``, the first time that it is read."""
        parts = self.__dict__.get("parts")
        if name != "value" or parts is None:
            raise AttributeError(name)
        found: Tensor = parts.value(self.sender, self.item)
        self.__dict__["value"] = found
        return found

    @property
    def row_bytes(self) -> int:
        if self.parts is None:
            return super().row_bytes
        return self.parts.x.shape[1] * self.parts.x.element_size()
