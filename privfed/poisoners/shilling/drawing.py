"""Draws of each malicious client: which items, and ratings of them."""

import torch
from torch import Tensor

from privfed.data.world import Shape
from privfed.poisoners.crafting.scale import ends
from privfed.seeds import Stream

_BLOCK = 1 << 22  # numbers drawn at a time


def drawn(
    stream: Stream, clients: Tensor, items: int, taken: Tensor, size: int
) -> Tensor:
    """Distinct items of each client, uniform among those not ``taken``.

    ``taken`` is (clients, any), distinct in each row, and leaves at least ``size`` of
    the ``items``. Returns (clients, size).
    """
    every = torch.arange(items)
    few = max(1, _BLOCK // max(1, items))
    found = [taken.new_zeros(0, size)]
    blocks = zip(torch.split(clients, few), torch.split(taken, few), strict=True)
    for some, gone in blocks:
        key = stream.bits(some[:, None], every).scatter(1, gone, -1)
        order = key.argsort(dim=1, stable=True)
        found.append(order[:, gone.shape[1] : gone.shape[1] + size])
    return torch.cat(found)


def around(
    stream: Stream, clients: Tensor, size: int, mean: float, deviation: float
) -> Tensor:
    """Normal draws of each client, (clients, size)."""
    found = torch.empty(len(clients), size)
    stream.normal(clients, list(found))
    return found * deviation + mean


def anywhere(stream: Stream, clients: Tensor, size: int, shape: Shape) -> Tensor:
    """Ratings drawn uniformly from a scale, (clients, size)."""
    low, high = ends(shape)
    at = torch.arange(size)
    if not shape.step:
        share = stream.uniform(clients[:, None], at).float()
        return share * (high - low) + low
    grains = round((high - low) / shape.step) + 1
    drawn_ = stream.integers(clients[:, None], at, grains)
    return low + drawn_.float() * shape.step
