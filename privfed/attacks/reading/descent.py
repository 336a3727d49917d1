"""Many small problems minimized at once, each as if it were alone.

The problems share one objective that gives each its own value, so that one pass of
autograd serves all; steps, directions and ends are each problem's own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Objective = Callable[[Tensor, Tensor], Tensor]  # points (some, numbers), which: (some,)

_HALVINGS = 20
_ENOUGH = 1e-4  # of the decrease that the slope promises (Armijo)
_CURVED = 1e-10  # least curvature, relative, of a pair that is remembered
_BETAS = (0.9, 0.999)


@dataclass(frozen=True, eq=False)
class Found:
    """The best point of each problem and its value there."""

    point: Tensor  # (problems, numbers)
    value: Tensor  # (problems,)


def lbfgs(
    objective: Objective,
    start: Tensor,
    iterations: int,
    memory: int = 20,
    enough: float = 0.0,
) -> Found:
    """Limited-memory BFGS by the two-loop recursion (Nocedal, 1980), by problem.

    The line search halves a step until Armijo's rule holds. A problem ends where its
    value is ``enough`` or less, or where no step helps even straight downhill.
    """
    x = start.detach().clone()
    every = torch.arange(len(x), device=x.device)
    value, slope = _slope(objective, x, every)
    past = _Past.empty(x, memory)
    moving = (value > enough) & slope.any(1)
    for _ in range(iterations):
        at = moving.nonzero()[:, 0]
        if not len(at):
            break
        way = -past.of(at).times(slope[at])
        uphill = (way * slope[at]).sum(1) >= 0
        way = torch.where(uphill[:, None], -slope[at], way)
        new = past.filled[at] == 0
        size = torch.where(new, _first_size(slope[at]), 1.0)
        step, after, slope_after = _search(
            objective, x[at], value[at], slope[at], way, size, at
        )
        moved = step > 0
        shift = way * step[:, None]
        past.remember(at, shift, slope_after - slope[at], moved)
        straight = ~moved & new
        past.forget(at[~moved])
        x[at], value[at], slope[at] = x[at] + shift, after, slope_after
        moving[at] = (after > enough) & slope_after.any(1) & ~straight
    return Found(x, value)


def adam(
    objective: Objective,
    start: Tensor,
    iterations: int,
    rate: float,
    signed: bool = False,
) -> Found:
    """Adam with a rate that falls to a tenth twice; the best point of each problem.

    ``signed`` takes the gradient's signs alone (Geiping et al., NeurIPS 2020).
    """
    x = start.detach().clone()
    every = torch.arange(len(x), device=x.device)
    first, second = torch.zeros_like(x), torch.zeros_like(x)
    best, least = x.clone(), torch.full_like(x[:, 0], torch.inf)
    for number in range(1, iterations + 1):
        value, slope = _slope(objective, x, every)
        better = value < least
        best[better], least[better] = x[better], value[better]
        slope = slope.sign() if signed else slope
        first.mul_(_BETAS[0]).add_(slope, alpha=1 - _BETAS[0])
        second.mul_(_BETAS[1]).addcmul_(slope, slope, value=1 - _BETAS[1])
        now = rate * 0.1 ** int(3 * (number - 1) / iterations)
        root = (second / (1 - _BETAS[1] ** number)).sqrt()
        x = x - now * first / (1 - _BETAS[0] ** number) / (root + 1e-8)
    return Found(best, least)


def _slope(objective: Objective, x: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Values and gradients; a value that is no number counts as infinite."""
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        value = objective(point, at)
        [slope] = torch.autograd.grad(value.sum(), point, materialize_grads=True)
    bad = ~(value.isfinite() & slope.isfinite().all(1))
    return (
        value.detach().masked_fill(bad, torch.inf),
        slope.masked_fill(bad[:, None], 0.0),
    )


def _first_size(slope: Tensor) -> Tensor:
    """Of a step before any curvature is known."""
    return slope.abs().sum(1).clamp_min(1.0).reciprocal()


def _search(
    objective: Objective,
    x: Tensor,
    value: Tensor,
    slope: Tensor,
    way: Tensor,
    size: Tensor,
    at: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Steps that decrease enough, 0 where none does; values and gradients there."""
    promised = (way * slope).sum(1) * _ENOUGH
    taken, after, slope_after = torch.zeros_like(size), value.clone(), slope.clone()
    left = torch.arange(len(x), device=x.device)
    for _ in range(_HALVINGS):
        new = x[left] + way[left] * size[left, None]
        tried, sloped = _slope(objective, new, at[left])
        good = tried <= value[left] + size[left] * promised[left]
        done = left[good]
        taken[done], after[done] = size[done], tried[good]
        slope_after[done] = sloped[good]
        left = left[~good]
        if not len(left):
            break
        size[left] *= 0.5
    return taken, after, slope_after


@dataclass(eq=False)
class _Past:
    """Each problem's last shifts and what they changed in the gradient, newest last."""

    shift: Tensor  # (problems, memory, numbers)
    change: Tensor  # (problems, memory, numbers)
    filled: Tensor  # (problems,)

    @classmethod
    def empty(cls, x: Tensor, memory: int) -> "_Past":
        shape = (len(x), memory, x.shape[1])
        filled = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return cls(x.new_zeros(shape), x.new_zeros(shape), filled)

    def of(self, at: Tensor) -> "_Past":
        return _Past(self.shift[at], self.change[at], self.filled[at])

    def times(self, slope: Tensor) -> Tensor:
        """The inverse Hessian as remembered times a vector; empty places do nothing."""
        curve = (self.shift * self.change).sum(2)  # (problems, memory)
        inverse = torch.where(curve > 0, 1 / curve.clamp_min(1e-300), 0.0)
        out, weights = slope.clone(), []
        for k in range(self.shift.shape[1] - 1, -1, -1):
            weight = inverse[:, k] * (self.shift[:, k] * out).sum(1)
            out = out - weight[:, None] * self.change[:, k]
            weights.append(weight)
        newest = self.change[:, -1].square().sum(1)
        scale = torch.where(newest > 0, curve[:, -1] / newest.clamp_min(1e-300), 1.0)
        out = out * scale[:, None]
        for k, weight in enumerate(reversed(weights)):
            back = inverse[:, k] * (self.change[:, k] * out).sum(1)
            out = out + (weight - back)[:, None] * self.shift[:, k]
        return out

    def remember(self, at: Tensor, shift: Tensor, change: Tensor, keep: Tensor) -> None:
        """Keep a pair of the problems marked, where the slope grew along the shift."""
        curve = (shift * change).sum(1)
        sizes = shift.square().sum(1).sqrt() * change.square().sum(1).sqrt()
        good = keep & (curve > _CURVED * sizes)
        at = at[good]
        self.shift[at] = torch.cat([self.shift[at, 1:], shift[good, None]], 1)
        self.change[at] = torch.cat([self.change[at, 1:], change[good, None]], 1)
        self.filled[at] += 1

    def forget(self, at: Tensor) -> None:
        self.shift[at], self.change[at], self.filled[at] = 0.0, 0.0, 0
