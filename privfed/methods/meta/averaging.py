"""Local epochs of Adam, the baseline's training, each client with its own moments.

Kingma and Ba, 2015. A client that has no record in a batch takes no step, and its
count of steps stands still.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from privfed.interfaces import State
from privfed.methods.meta.adaptation import slopes
from privfed.methods.meta.records import Records

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


def local_adam(
    weights: State,
    losses: Callable[[State, Records], Tensor],
    batches: Iterable[Records],
    rate: float,
) -> tuple[dict[str, Tensor], Tensor]:
    """Weights after one step for each batch, and the last loss of each client."""
    after = {name: value.detach().clone() for name, value in weights.items()}
    first = {name: torch.zeros_like(value) for name, value in after.items()}
    second = {name: torch.zeros_like(value) for name, value in after.items()}
    count = next(iter(after.values())).new_zeros(len(next(iter(after.values()))))
    loss = torch.zeros_like(count)
    for batch in batches:
        leaves = {name: value.requires_grad_() for name, value in after.items()}
        found = losses(leaves, batch)
        down = slopes(found, leaves)
        active = batch.real.any(1)
        loss = torch.where(active, found.detach(), loss)
        count = count + active
        for name, slope in down.items():
            first[name] = _mix(first[name], slope, _BETA1, active)
            second[name] = _mix(second[name], slope * slope, _BETA2, active)
            step = rate * _step(first[name], second[name], count)
            moved = after[name].detach() - step
            after[name] = torch.where(_over(active, moved), moved, after[name].detach())
    return {name: value.detach() for name, value in after.items()}, loss


def _over(value: Tensor, like: Tensor) -> Tensor:
    """A number for each client, laid over its tensor."""
    return value.view(-1, *[1] * (like.dim() - 1))


def _mix(moment: Tensor, slope: Tensor, beta: float, active: Tensor) -> Tensor:
    mixed = beta * moment + (1 - beta) * slope
    return torch.where(_over(active, mixed), mixed, moment)


def _step(first: Tensor, second: Tensor, count: Tensor) -> Tensor:
    told = count.clamp_min(1).double()
    one = _over((1 - _BETA1**told).to(first.dtype), first)
    two = _over((1 - _BETA2**told).to(first.dtype), first)
    return (first / one) / ((second / two).sqrt() + _EPSILON)
