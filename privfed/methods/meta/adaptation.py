"""Adapting shared weights to each client, and the gradient through it.

FedMeta (Chen et al., 2018): theta_u = theta - alpha * grad L_S(theta), and the server
learns from d L_Q(theta_u) / d theta. Clients' losses are added up before they are
differentiated; no client's loss depends on another's weights, so each client's
gradient is its own, and exact.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.interfaces import State

Losses = Callable[[State], Tensor]  # weights (clients, ...) to losses (clients,)
Rates = Mapping[str, Tensor | float]


def copies(model: State, clients: int) -> dict[str, Tensor]:
    """Each client's own copy of shared weights, (clients, ...)."""
    return {
        name: value.expand(clients, *value.shape).clone().requires_grad_()
        for name, value in model.items()
    }


def slopes(losses: Tensor, weights: State, twice: bool = False) -> dict[str, Tensor]:
    """Gradient of each client's loss; ``twice`` keeps it differentiable."""
    found = torch.autograd.grad(
        losses.sum(), [*weights.values()], create_graph=twice, materialize_grads=True
    )
    return dict(zip(weights, found, strict=True))


def adapt(
    weights: State, losses: Losses, rates: Rates, steps: int, exact: bool
) -> dict[str, Tensor]:
    """Weights after steps down each client's loss.

    Where ``exact``, what comes out can be differentiated through the steps; else it
    is as if their slopes were constants (first order).
    """
    for _ in range(steps):
        down = slopes(losses(weights), weights, twice=exact)
        weights = {n: v - rates[n] * down[n] for n, v in weights.items()}
    return dict(weights)


@dataclass(frozen=True, eq=False)
class MetaGradient:
    """Each client's query loss after adapting, (clients,), and its gradient."""

    loss: Tensor
    weights: Mapping[str, Tensor]  # (clients, ...)
    rates: Mapping[str, Tensor]  # of step sizes that are learned


def meta_gradient(
    start: State, support: Losses, query: Losses, rates: Rates, steps: int, exact: bool
) -> MetaGradient:
    """Differentiate each client's query loss after adapting, by where it started.

    ``start`` holds leaves (clients, ...); rates that require a gradient get one.
    """
    learned = {
        n: r for n, r in rates.items() if isinstance(r, Tensor) and r.requires_grad
    }
    loss = query(adapt(start, support, rates, steps, exact))
    by_weight = {f"w.{name}": value for name, value in start.items()}
    by_rate = {f"r.{name}": value for name, value in learned.items()}
    found = slopes(loss, by_weight | by_rate)
    return MetaGradient(
        loss.detach(),
        {name: found[f"w.{name}"] for name in start},
        {name: found[f"r.{name}"] for name in learned},
    )
