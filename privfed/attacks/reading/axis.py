"""The direction along which a client's rows lie."""

import torch
from torch import Tensor

from privfed.messages import Rows


def principal(rows: Rows, clients: int, power: int) -> tuple[Tensor, Tensor, Tensor]:
    """Each row along its client's first principal axis, (rows,).

    With it the axis, (clients, width), and its share of the rows' energy, (clients,).
    Power iteration from each client's longest row, all clients at once.
    """
    value, sender = rows.value, rows.sender
    energy = value.square().sum(1)
    longest = value.new_zeros(clients).scatter_reduce(
        0, sender, energy, "amax", include_self=True
    )
    at = (energy == longest[sender]).nonzero()[:, 0].flip(0)  # of equals, the first
    start = value.new_zeros(clients, value.shape[1])
    start[sender[at]] = value[at]
    axis = unit(start)
    moving = torch.ones(clients, 1, dtype=torch.bool)  # a client stops by itself
    for _ in range(power):
        along = (value * axis[sender]).sum(1)
        axis_next = torch.zeros_like(axis).index_add_(0, sender, value * along[:, None])
        axis_next = torch.where(moving, unit(axis_next), axis)
        moving = (axis_next - axis).abs().amax(1, keepdim=True) >= 1e-6
        axis = axis_next
        if not moving.any():
            break
    along = (value * axis[sender]).sum(1)
    whole = by_client(energy, sender, clients).clamp_min(1e-30)
    return along, axis, by_client(along.square(), sender, clients) / whole


def off_axis(rows: Rows, explained: Tensor, clients: int) -> Tensor:
    """Deviation along the axis of a row that is noise alone, (clients,).

    Its scale is that of what lies off the axis. The axis that explains most also
    follows the noise, by the factor that the largest singular value of a random matrix
    has.
    """
    value, sender = rows.value, rows.sender
    sent = by_client(torch.ones_like(value[:, 0]), sender, clients).clamp_min(1)
    width = value.shape[1]
    energy = by_client(value.square().sum(1), sender, clients)
    left = energy * (1 - explained).clamp_min(0) / (sent * max(1, width - 1))
    return left.sqrt() * (1 + (width / sent).sqrt())


def unit(x: Tensor) -> Tensor:
    """Rows of length one, (rows, width); zeros stay zeros."""
    length: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / length.clamp_min(1e-30)


def by_client(value: Tensor, sender: Tensor, clients: int) -> Tensor:
    """The sum of each client's values, (clients, ...)."""
    total = value.new_zeros(clients, *value.shape[1:])
    return total.index_add_(0, sender, value)
