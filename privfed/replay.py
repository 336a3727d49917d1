"""Local training repeated by an adversary, so that autograd follows all of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from privfed.devices.recipe import EACH, Recipe
from privfed.interfaces import State

_BETAS, _EPSILON = (0.9, 0.999), 1e-8  # Adam's, in PyTorch
_ROOT = 1e-24  # under its square root, whose slope at zero is infinite


@dataclass(frozen=True, eq=False)
class Replayed:
    """What local training did: how things moved, and what private tensors became."""

    rows: Mapping[str, Tensor]  # (clients, samples, width) by table
    shared: Mapping[str, Tensor]  # (clients, ...)
    own: Mapping[str, Tensor]  # (clients, ...)


def replay(
    recipe: Recipe,
    model: State,
    own: State,
    item: Tensor,
    label: Tensor,
    real: Tensor,
) -> Replayed:
    """Train some clients, all at once, by a recipe.

    ``item``, ``label`` and ``real`` are (clients, samples); an item stands once for a
    client, and ``real`` may be a number: how often a sample counts. ``own`` holds
    (clients, ...) of every private tensor. Where the label or an own tensor needs a
    gradient, the result can be differentiated by it. Everything has the type of
    ``label``.
    """
    rows = {name: model[name].to(label)[item] for name in recipe.tables}
    shared = {
        name: model[name].to(label).expand(len(item), *model[name].shape)
        for name in recipe.shared
    }
    return repeat(recipe, rows, shared, own, label, real)


def repeat(
    recipe: Recipe,
    rows: State,
    shared: State,
    own: State,
    label: Tensor,
    real: Tensor,
) -> Replayed:
    """The same, where clients started from models of their own.

    ``rows`` are (clients, samples, width), ``shared`` (clients, ...).
    """
    start = {**rows, **shared, **{name: own[name] for name in recipe.own}}
    graph = any(value.requires_grad for value in start.values()) or label.requires_grad

    def slopes(values: State, of: Sequence[str]) -> State:
        return _slopes(recipe, rows, values, of, label, real, graph)

    end = _train(recipe, start, slopes, _steps(recipe, real))
    used = (real != 0)[..., None]
    return Replayed(
        {name: (end[name] - rows[name]) * used for name in rows},
        {name: end[name] - shared[name] for name in shared},
        {name: end[name] for name in recipe.own},
    )


def random_own(
    recipe: Recipe, clients: int, samples: int, rng: torch.Generator, spread: float
) -> State:
    """Private tensors that an adversary makes up, normal around 0: (clients, ...)."""

    def drawn(size: tuple[int, ...]) -> Tensor:
        full = (clients, *(samples if n == EACH else n for n in size))
        value = torch.randn(full, generator=rng, dtype=torch.float64, device="cpu")
        return (value * spread).to(torch.get_default_device())

    return {name: drawn(size) for name, size in recipe.own.items()}


Slopes = Callable[[State, Sequence[str]], State]


def _steps(recipe: Recipe, real: Tensor) -> Tensor:
    """Steps that each client takes, (clients,)."""
    if recipe.batch is None:
        return torch.full_like(real[:, 0], recipe.steps, dtype=torch.int64)
    return recipe.steps * (real.sum(1) / recipe.batch).ceil().long()


def _train(recipe: Recipe, values: State, slopes: Slopes, steps: Tensor) -> State:
    adam = Moments() if recipe.optimizer == "adam" else None
    least = int(steps.min()) if len(steps) else 0
    for number in range(int(steps.max()) if len(steps) else 0):
        taken = (steps > number).to(next(iter(values.values())).dtype)
        for rates in recipe.phases:
            found = slopes(values, list(rates))
            moves = adam.moves(found) if adam else found
            if number >= least:  # a client that is done stays where it is
                moves = {n: _times(move, taken) for n, move in moves.items()}
            values = {
                name: value - rates[name] * moves[name] if name in rates else value
                for name, value in values.items()
            }
    return values


def _times(value: Tensor, by: Tensor) -> Tensor:
    return value * by.view(-1, *[1] * (value.dim() - 1))


def _slopes(
    recipe: Recipe,
    held: State,
    values: State,
    of: Sequence[str],
    label: Tensor,
    real: Tensor,
    graph: bool,
) -> State:
    """Gradients of the clients' losses; their sum has each client's own in its part."""
    with torch.enable_grad():
        values = {name: _followed(value, graph) for name, value in values.items()}
        rows = {name: values[name] for name in recipe.tables}
        shared = {name: values[name] for name in recipe.shared}
        own = {name: values[name] for name in recipe.own}
        loss = recipe.loss(recipe.predict(rows, shared, own), label, real)
        if recipe.penalty is not None:
            loss = loss + recipe.penalty(rows, held, own, real.to(label))
        found = torch.autograd.grad(
            loss.sum(),
            [values[name] for name in of],
            create_graph=graph,
            materialize_grads=True,
        )
    named = dict(zip(of, found, strict=True))
    decay = recipe.decay
    return {
        name: slope + decay[name] * values[name] if name in decay else slope
        for name, slope in named.items()
    }


def _followed(value: Tensor, graph: bool) -> Tensor:
    """A tensor that autograd follows, cut off from the past where none is asked for."""
    if graph and value.requires_grad:
        return value
    return value.detach().requires_grad_()


@dataclass(eq=False)
class Moments:
    """Adam's running means by tensor, as new tensors at every step."""

    steps: dict[str, int] = field(default_factory=dict)
    first: dict[str, Tensor] = field(default_factory=dict)
    second: dict[str, Tensor] = field(default_factory=dict)

    def moves(self, slopes: State) -> State:
        """What each tensor is to move against, times its learning rate."""
        return {name: self._move(name, slope) for name, slope in slopes.items()}

    def _move(self, name: str, slope: Tensor) -> Tensor:
        one, two = _BETAS
        self.steps[name] = now = self.steps.get(name, 0) + 1
        before = (self.first.get(name), self.second.get(name))
        first = slope * (1 - one)
        second = slope.square() * (1 - two)
        if before[0] is not None and before[1] is not None:
            first, second = first + one * before[0], second + two * before[1]
        self.first[name], self.second[name] = first, second
        root = (second / (1 - two**now) + _ROOT).sqrt()
        return first / (1 - one**now) / (root + _EPSILON)
