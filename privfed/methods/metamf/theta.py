"""MetaMF's trainable tensors: their names, sizes and first values.

All of them stay on the server. A generator's two outputs for one layer, weights and
biases, are one tensor, and so are the first layers of all generators: few large
products instead of many small ones. The item generator lies item by item, so that the
rows of a few items are a few contiguous pieces of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod, sqrt
from typing import Literal

import torch
from torch import Generator, Tensor

from privfed.data.world import Shape
from privfed.interfaces import SERVER, State

Variant = Literal["full", "si", "sm"]

USERS, MEMORY = f"{SERVER}users", f"{SERVER}memory"
HIDDEN, LOW, RISE = f"{SERVER}hidden", f"{SERVER}low", f"{SERVER}rise"
FIRST, SECOND = f"{SERVER}first", f"{SERVER}second"
ITEMS = f"{SERVER}items"  # MetaMF-SI's one table for all


@dataclass(frozen=True)
class Sizes:
    """Widths of all that is generated and of what generates it."""

    variant: Variant
    width: int
    layer: int
    low: int
    collaborative: int
    hidden: int
    user_width: int

    @property
    def outputs(self) -> tuple[int, int]:
        """Numbers of each layer of the prediction network, weights then biases."""
        return self.width * self.layer + self.layer, self.layer + 1

    def received(self, items: int) -> int:
        """Numbers that a client receives: its item table and its network."""
        return items * self.width + sum(self.outputs)


@dataclass(frozen=True)
class Part:
    """One tensor; ``blocks`` are (rows, standard deviation) of its first values."""

    size: tuple[int, ...]
    blocks: tuple[tuple[int, float], ...] = ()  # none: zeros

    @property
    def numbers(self) -> int:
        """Trainable numbers."""
        return prod(self.size)

    def start(self, rng: Generator) -> Tensor:
        """First values, drawn on the CPU so that a device changes no draw."""
        if not self.blocks:
            return torch.zeros(self.size)
        out = torch.randn(self.size, generator=rng, device="cpu")
        for part, (_, std) in zip(
            torch.split(out, [rows for rows, _ in self.blocks]),
            self.blocks,
            strict=True,
        ):
            part.mul_(std)
        return out.to(torch.get_default_device())


def theta(sizes: Sizes, shape: Shape) -> Mapping[str, Part]:
    """Every tensor by name, in the order in which they are drawn.

    Xavier-normal weights and zero biases, but user rows of variance 1, as the released
    code has them (the paper says Xavier for all).
    """
    wide, states = sizes.user_width, sizes.collaborative
    found = {
        USERS: Part((shape.clients, wide), ((shape.clients, 1.0),)),
        MEMORY: Part((wide, states), ((wide, _xavier(wide, states)),)),
    }
    generators = {"full": 3, "si": 2, "sm": 1}[sizes.variant] * sizes.hidden
    found[f"{HIDDEN}.weight"] = Part(
        (generators, states), ((generators, _xavier(states, sizes.hidden)),)
    )
    found[f"{HIDDEN}.bias"] = Part((generators,))
    return found | _items(sizes, shape.items) | _network(sizes)


def _items(sizes: Sizes, items: int) -> dict[str, Part]:
    if sizes.variant == "si":
        std = _xavier(items, sizes.width)
        return {ITEMS: Part((items, sizes.width), ((items, std),))}
    low = (items, sizes.low)
    std = _xavier(sizes.hidden, items * sizes.low)
    return {
        f"{LOW}.weight": Part((*low, sizes.hidden), ((items, std),)),
        f"{LOW}.bias": Part(low),
        **_linear(RISE, sizes.hidden, (sizes.low * sizes.width,)),
    }


def _network(sizes: Sizes) -> dict[str, Part]:
    weights = sizes.width * sizes.layer
    if sizes.variant != "sm":
        return {
            **_linear(FIRST, sizes.hidden, (weights, sizes.layer)),
            **_linear(SECOND, sizes.hidden, (sizes.layer, 1)),
        }
    first, second = sizes.outputs
    into, out = _xavier(sizes.width, sizes.layer), _xavier(sizes.layer, 1)
    return {
        FIRST: Part((first,), ((weights, into), (sizes.layer, 0.0))),
        SECOND: Part((second,), ((sizes.layer, out), (1, 0.0))),
    }


def _linear(name: str, inputs: int, outputs: tuple[int, ...]) -> dict[str, Part]:
    """Linear layers that read the same input, one below the other."""
    size = sum(outputs)
    blocks = tuple((out, _xavier(inputs, out)) for out in outputs)
    return {
        f"{name}.weight": Part((size, inputs), blocks),
        f"{name}.bias": Part((size,)),
    }


def _xavier(fan_in: int, fan_out: int) -> float:
    return sqrt(2 / (fan_in + fan_out))


def start(sizes: Sizes, shape: Shape, rng: Generator) -> State:
    """First values of everything."""
    return {name: part.start(rng) for name, part in theta(sizes, shape).items()}
