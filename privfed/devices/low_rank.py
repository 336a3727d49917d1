"""Linear layers that a few steps move, kept as their start and a low-rank change.

After t steps of SGD a layer is W = W0 + D^T X, where X holds the inputs of all
samples at all steps and D minus the learning rate times their output gradients. A
device with few samples computes with X and D instead of W: the start is shared by
the whole shard and stays in cache, and no client's own copy of a weight is ever
written. This is the same arithmetic to rounding.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

_GAIN = 2  # measured: beyond it a layer's own copy is faster


@dataclass(eq=False)
class LowRank:
    """One layer of a shard; ``step`` changes it in place."""

    weight: Tensor  # (clients, out, in), before any step; may be expanded
    bias: Tensor  # (clients, out), likewise
    input: Tensor  # (clients, steps * samples, in); the first ``used`` count
    dual: Tensor  # (clients, steps * samples, out)
    used: int = 0

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor, samples: int) -> Self:
        """A layer that will see ``samples`` samples in all its steps together."""
        clients, out, width = weight.shape
        return cls(
            weight,
            bias,
            weight.new_empty(clients, samples, width),
            weight.new_empty(clients, samples, out),
        )

    def output(self, x: Tensor) -> Tensor:
        """The layer on (clients, samples, in)."""
        start = torch.baddbmm(self.bias[:, None], x, self.weight.transpose(1, 2))
        if not self.used:
            return start
        seen, dual = self._so_far()
        alike = torch.baddbmm(x.new_ones(1, 1, 1), x, seen.transpose(1, 2))
        return torch.baddbmm(start, alike, dual)  # the one is the bias

    def back(self, delta: Tensor) -> Tensor:
        """Gradient of the input, from that of the output."""
        start = torch.bmm(delta, self.weight)
        if not self.used:
            return start
        seen, dual = self._so_far()
        return torch.baddbmm(start, torch.bmm(delta, dual.transpose(1, 2)), seen)

    def step(self, x: Tensor, delta: Tensor, rate: float) -> None:
        """Move against a gradient given by its samples."""
        end = self.used + x.shape[1]
        self.input[:, self.used : end] = x
        torch.mul(delta, -rate, out=self.dual[:, self.used : end])
        self.used = end

    def change(self) -> tuple[Tensor, Tensor]:
        """What the steps did to weight (clients, out, in) and bias (clients, out)."""
        seen, dual = self._so_far()
        return torch.bmm(dual.transpose(1, 2), seen), dual.sum(1)

    def _so_far(self) -> tuple[Tensor, Tensor]:
        return self.input[:, : self.used], self.dual[:, : self.used]


def pays(size: tuple[int, ...], samples: int) -> bool:
    """Whether a layer of ``size`` = (in, out) is better kept so.

    It looks at nothing but what is one client's own, so that shards change nothing.
    """
    width, out = size
    return samples * (width + out) <= _GAIN * width * out
