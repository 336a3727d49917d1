"""The trainable tensors of a recommender, declared by name, kind and place."""

from dataclasses import dataclass
from math import sqrt
from typing import Literal

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class Part:
    """One trainable tensor group.

    ``rows``: an item table of ``size`` = (width,); ``layer``: a linear layer of
    ``size`` = (in, out); ``vector``: one vector a client, ``size`` = (width,).
    """

    name: str
    kind: Literal["rows", "layer", "vector"]
    size: tuple[int, ...]
    private: bool = False
    std: float | None = None  # of the first values, instead of Xavier's

    def numbers(self, items: int) -> int:
        """Trainable numbers that one client handles."""
        if self.kind == "layer":
            return self.size[0] * self.size[1] + self.size[1]
        return self.size[0] * (items if self.kind == "rows" else 1)

    def start(self, items: int, rng: Generator) -> dict[str, Tensor]:
        """Xavier-normal tables, vectors and weights, zero biases.

        Drawn on the CPU, so that a device changes no draw.
        """
        if self.kind == "layer":
            fan_in, fan_out = self.size
            weight = _drawn((fan_out, fan_in), rng)
            std = self.std or sqrt(2 / (fan_in + fan_out))
            return {
                f"{self.name}.weight": weight * std,
                f"{self.name}.bias": torch.zeros(fan_out),
            }
        rows = items if self.kind == "rows" else 1
        std = self.std or sqrt(2 / (rows + self.size[0]))
        table = _drawn((rows, self.size[0]), rng) * std
        return {self.name: table if self.kind == "rows" else table[0]}


def _drawn(size: tuple[int, int], rng: Generator) -> Tensor:
    drawn = torch.randn(size, generator=rng, device="cpu")
    return drawn.to(torch.get_default_device())
