"""How popular an item looks, by its row: a small network that learns it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from privfed.interfaces import State
from privfed.seeds import Stream

_BETAS, _EPS = (0.9, 0.999), 1e-8  # Adam's, in PyTorch
_TAKEN = "taken"


def levels_of(popularity: Tensor, shares: Sequence[float]) -> Tensor:
    """Level of each item, (items,): 0 for the least popular, up by these shares.

    ``shares`` of the catalog, from the top, reach the highest level, the next, and so
    on; the rest is level 0. Ties go by item number.
    """
    order = popularity.argsort(descending=True, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    ends = torch.tensor(shares).cumsum(0) * len(order)
    return len(shares) - torch.searchsorted(ends.to(order.device), place + 1.0)


@dataclass(frozen=True)
class Estimator:
    """A network width -> hidden -> levels on item rows, trained by Adam.

    Rows are first brought to mean 0 and deviation 1 over the catalog. Its memory is
    ``start`` and then what ``learned`` returns.
    """

    hidden: int = 32
    rate: float = 0.01

    def start(self, width: int, levels: int, stream: Stream) -> dict[str, Tensor]:
        """He's normal weights, no biases, no step taken."""
        rng = stream.generator()
        found: dict[str, Tensor] = {_TAKEN: torch.zeros(())}
        for name, (fan_in, fan_out) in {
            "0": (width, self.hidden),
            "1": (self.hidden, levels),
        }.items():
            weight = torch.randn(fan_out, fan_in, generator=rng, device="cpu")
            found[f"weight{name}"] = weight.to(found[_TAKEN]) * sqrt(2 / fan_in)
            found[f"bias{name}"] = torch.zeros(fan_out)
        moments = {
            f"{order}.{name}": torch.zeros_like(value)
            for order in ("first", "second")
            for name, value in found.items()
            if name != _TAKEN
        }
        return found | moments

    def logits(self, memory: State, row: Tensor, table: Tensor) -> Tensor:
        """(..., levels) of rows (..., width), seen beside ``table`` (items, width)."""
        spread, mean = torch.std_mean(table, 0)
        x = (row - mean) / spread.clamp_min(1e-12)
        x = torch.relu(x @ memory["weight0"].T + memory["bias0"])
        return x @ memory["weight1"].T + memory["bias1"]

    def learned(
        self, memory: State, table: Tensor, level: Tensor, steps: int
    ) -> Mapping[str, Tensor]:
        """The memory after some steps on the whole catalog.

        Every level weighs alike, however many items it has.
        """
        names = ["weight0", "bias0", "weight1", "bias1"]
        weight = 1.0 / torch.bincount(level).clamp_min(1)
        for _ in range(steps):
            leaves = {name: memory[name].detach().requires_grad_() for name in names}
            logit = self.logits(leaves, table, table)
            loss = cross_entropy(logit, level, weight[: logit.shape[1]].to(logit))
            slopes = torch.autograd.grad(loss, [leaves[name] for name in names])
            memory = self._stepped(memory, dict(zip(names, slopes, strict=True)))
        return memory

    def _stepped(self, memory: State, slopes: State) -> State:
        taken = memory[_TAKEN] + 1
        after = {_TAKEN: taken}
        for name, slope in slopes.items():
            first = memory[f"first.{name}"] * _BETAS[0] + slope * (1 - _BETAS[0])
            second = memory[f"second.{name}"] * _BETAS[1] + slope**2 * (1 - _BETAS[1])
            size = (second / (1 - _BETAS[1] ** taken)).sqrt() + _EPS
            move = first / (1 - _BETAS[0] ** taken) / size
            after[name] = memory[name] - move * self.rate
            after[f"first.{name}"], after[f"second.{name}"] = first, second
        return after
