"""Squared distances between clients, in double precision.

By way of inner products, so that rows which two clients do not share cost nothing. A
distance that is not a number (an upload holds one, or infinity) counts as infinite.
"""

import torch
from torch import Tensor

from privfed.channels.robust.groups import NUMBERS, ByItem, equal, in_cache
from privfed.messages import Uploads


def within(x: Tensor) -> Tensor:
    """Between the vectors of each group: (groups, n, width) to (groups, n, n)."""
    groups, count, _ = x.shape
    found = x.new_empty(groups, count, count, dtype=torch.float64)
    for out, few in in_cache(found, x):
        wide = few.double()
        out.copy_(_distances(torch.bmm(wide, wide.transpose(1, 2))))
    return found


def between_uploads(uploads: Uploads, items: int) -> Tensor:
    """Between whole uploads, all tensors together: (clients, clients).

    A row that a client did not send did not move: it counts as zero.
    """
    count = len(uploads.clients)
    products = torch.zeros(
        count, count, dtype=torch.float64, device=uploads.clients.device
    )
    for rows in uploads.rows.values():
        _add_table(products, ByItem.of(rows, items))
    _add_columns(products, flat(uploads))
    return _distances(products[None])[0]


def between_vectors(x: Tensor) -> Tensor:
    """Between the clients' vectors: (clients, width) to (clients, clients)."""
    products = x.new_zeros(len(x), len(x), dtype=torch.float64)
    _add_columns(products, x)
    return _distances(products[None])[0]


def flat(uploads: Uploads) -> Tensor:
    """What is no table of items as one vector a client, (clients, numbers)."""
    count = len(uploads.clients)
    parts = [*uploads.dense.values(), *uploads.rest.values()]
    empty = torch.zeros(count, 0, device=uploads.clients.device)
    return torch.cat([part.reshape(count, -1) for part in parts] or [empty], 1)


def _add_table(products: Tensor, table: ByItem) -> None:
    """Add every item's inner products to those of its senders."""
    count = len(products)
    for size, groups in equal(table.counts, lambda n: n * n + count * table.width):
        at = table.places(groups, size)
        value, sender = table.value[at].double(), table.sender[at]
        if 2 * size > count:  # scattered pairs would cost more than whole columns
            columns = value.new_zeros(count, len(groups), table.width)
            columns[sender.T, torch.arange(len(groups), device=at.device)] = (
                value.transpose(0, 1)
            )
            columns = columns.flatten(1)
            products.addmm_(columns, columns.T)
            continue
        pair = sender[:, :, None] * count + sender[:, None]
        some = torch.bmm(value, value.transpose(1, 2))
        products.view(-1).index_add_(0, pair.view(-1), some.view(-1))


def _add_columns(products: Tensor, x: Tensor) -> None:
    for columns in torch.split(x, max(1, NUMBERS // max(1, len(x))), 1):
        wide = columns.double()
        products.addmm_(wide, wide.T)


def _distances(products: Tensor) -> Tensor:
    square = products.diagonal(dim1=1, dim2=2)
    found = square[:, :, None] + square[:, None] - 2 * products
    found = (found + found.transpose(1, 2)) / 2  # exactly symmetric: ties stay ties
    return found.clamp_min_(0).nan_to_num_(nan=torch.inf)
