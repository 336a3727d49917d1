"""Uploads put together row by row."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.linalg import vector_norm

from privfed.messages import Rows, Uploads, summed


def scale_of(uploads: Uploads, name: str) -> float:
    """The learning rate by which a delta is minus a gradient; 1 where none is told."""
    return uploads.scale.get(name, 1.0)


def clipped(rows: Tensor, length: float) -> Tensor:
    """Vectors along the last axis, each cut to at most ``length``."""
    size: Tensor = vector_norm(rows, dim=-1, keepdim=True)
    return rows * (length / size.clamp_min(1e-30)).clamp_max(1.0)


@dataclass(frozen=True, eq=False)
class Crafted:
    """Rows of one table: the same items for all clients, or each client's own.

    ``item`` is (rows,) or (clients, rows); ``value``, deltas, is (rows, width) or
    (clients, rows, width). An item that a client names twice adds up.
    """

    item: Tensor
    value: Tensor

    def rows(self, clients: int, items: int) -> Rows:
        """The same as an upload carries them."""
        width, each = self.value.shape[-1], self.item.shape[-1]
        item = self.item.expand(clients, each).reshape(-1)
        value = self.value.expand(clients, each, width).reshape(-1, width)
        sender = torch.arange(clients, device=item.device).repeat_interleave(each)
        return summed(sender, item, value, items)


def replaced(
    uploads: Uploads,
    rows: Mapping[str, Crafted | Rows],
    dense: Mapping[str, Tensor],
    items: int,
) -> Uploads:
    """An upload that changes nothing but these rows and dense tensors.

    All values are deltas; ``dense`` holds (clients, ...) or one value for all.
    ``items`` is the catalog's size. Raises KeyError for a tensor that the upload does
    not have.
    """
    clients = len(uploads.clients)
    unknown = (rows.keys() - uploads.rows.keys()) | (
        dense.keys() - uploads.dense.keys()
    )
    if unknown:
        raise KeyError(f"the upload has no {', '.join(sorted(unknown))}")

    def of(name: str, sent: Rows) -> Rows:
        new = rows.get(name)
        if new is None:
            return Rows(sent.sender[:0], sent.item[:0], sent.value[:0])
        return new if isinstance(new, Rows) else new.rows(clients, items)

    def whole(name: str, sent: Tensor) -> Tensor:
        if name not in dense:
            return torch.zeros_like(sent)
        return dense[name].to(sent).expand_as(sent).contiguous()

    return replace(
        uploads,
        rows={name: of(name, sent) for name, sent in uploads.rows.items()},
        dense={name: whole(name, sent) for name, sent in uploads.dense.items()},
        users={name: torch.zeros_like(sent) for name, sent in uploads.users.items()},
    )
