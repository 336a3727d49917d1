"""Classifiers whose weights differ by client, as pure functions of their weights.

Weights have clients as their first axis, records are (clients, records, width), and
every product is one batched product: no client's numbers meet another's. FedMeta (Chen
et al., 2018): logistic regression and one hidden layer for the recommendation task,
letters read by an LSTM of two layers for Shakespeare.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from privfed.data.world import Shape
from privfed.devices.tape import affine
from privfed.errors import SettingsError
from privfed.interfaces import State
from privfed.methods.parts import Part


class Classifier(ABC):
    """A model that scores ``shape.items`` classes in a context."""

    @abstractmethod
    def init(self, shape: Shape, rng: Generator) -> dict[str, Tensor]:
        """First weights, by name."""

    @abstractmethod
    def logits(self, weights: State, context: Tensor) -> Tensor:
        """Scores (clients, records, classes) of contexts (clients, records, width)."""

    @abstractmethod
    def activations(self, shape: Shape) -> int:
        """Numbers that one record leaves behind on the way to its scores."""

    @abstractmethod
    def flops(self, shape: Shape) -> int:
        """Additions and multiplications that scoring one record takes."""


@dataclass(frozen=True)
class Logistic(Classifier):
    """Multinomial logistic regression."""

    def init(self, shape: Shape, rng: Generator) -> dict[str, Tensor]:
        return Part("out", "layer", (shape.context, shape.items)).start(0, rng)

    def logits(self, weights: State, context: Tensor) -> Tensor:
        return linear(weights, "out", context)

    def activations(self, shape: Shape) -> int:
        return shape.items

    def flops(self, shape: Shape) -> int:
        return 2 * shape.context * shape.items


@dataclass(frozen=True)
class Network(Classifier):
    """One hidden layer of rectified units."""

    hidden: int

    def init(self, shape: Shape, rng: Generator) -> dict[str, Tensor]:
        first = Part("hidden", "layer", (shape.context, self.hidden))
        last = Part("out", "layer", (self.hidden, shape.items))
        return first.start(0, rng) | last.start(0, rng)

    def logits(self, weights: State, context: Tensor) -> Tensor:
        hidden = torch.relu(linear(weights, "hidden", context))
        return linear(weights, "out", hidden)

    def activations(self, shape: Shape) -> int:
        return 2 * self.hidden + shape.items

    def flops(self, shape: Shape) -> int:
        return 2 * self.hidden * (shape.context + shape.items)


_EMBEDDING = 8
_LAYERS = 2


@dataclass(frozen=True)
class Letters(Classifier):
    """Letters embedded in 8 numbers and read by an LSTM of two layers.

    A context is a row of letters, each a code below the number of classes.
    """

    hidden: int

    def init(self, shape: Shape, rng: Generator) -> dict[str, Tensor]:
        found = {"letters": torch.randn(shape.items, _EMBEDDING, generator=rng)}
        for layer, width in enumerate(self._widths()):
            for name, inner in (("input", width), ("state", self.hidden)):
                size = (4 * self.hidden, inner)
                drawn = 2 * torch.rand(size, generator=rng) - 1
                found[f"lstm{layer}.{name}"] = drawn / sqrt(self.hidden)
            found[f"lstm{layer}.bias"] = torch.zeros(4 * self.hidden)
        found |= Part("out", "layer", (self.hidden, shape.items)).start(0, rng)
        return {n: v.to(torch.get_default_device()) for n, v in found.items()}

    def logits(self, weights: State, context: Tensor) -> Tensor:
        codes = _codes(context, weights["letters"].shape[1])
        read = affine(weights["letters"], weights["lstm0.input"], weights["lstm0.bias"])
        drive = rows_of(read, codes.transpose(1, 2))  # (clients, length, records, 4 h)
        for layer in range(1, _LAYERS):
            states = self._run(drive, weights[f"lstm{layer - 1}.state"])
            flat = torch.stack(states, 1).flatten(1, 2)
            drive = affine(
                flat, weights[f"lstm{layer}.input"], weights[f"lstm{layer}.bias"]
            ).view_as(drive)
        last = self._run(drive, weights[f"lstm{_LAYERS - 1}.state"])[-1]
        return linear(weights, "out", last)

    def _run(self, drive: Tensor, state: Tensor) -> list[Tensor]:
        """The hidden state after each letter, (clients, records, hidden) each."""
        clients, _, records, _ = drive.shape
        cell = drive.new_zeros(clients, records, self.hidden)
        seen = cell
        states = []
        for here in drive.unbind(1):
            gates = torch.baddbmm(here, seen, state.transpose(1, 2))
            enter, keep, new, leave = gates.chunk(4, dim=2)
            cell = torch.sigmoid(keep) * cell + torch.sigmoid(enter) * torch.tanh(new)
            seen = torch.sigmoid(leave) * torch.tanh(cell)
            states.append(seen)
        return states

    def _widths(self) -> tuple[int, ...]:
        return (_EMBEDDING,) + (self.hidden,) * (_LAYERS - 1)

    def activations(self, shape: Shape) -> int:
        return shape.context * _LAYERS * 12 * self.hidden

    def flops(self, shape: Shape) -> int:
        step = sum(8 * self.hidden * (w + self.hidden) for w in self._widths())
        return shape.context * step + 2 * self.hidden * shape.items


def linear(weights: State, name: str, x: Tensor) -> Tensor:
    """Each client's own layer; inputs padded to a multiple of 4 with zeros.

    Matrix libraries treat rows that start off a boundary differently.
    """
    weight, short = weights[f"{name}.weight"], -x.shape[2] % 4
    if short:
        x, weight = pad(x, (0, short)), pad(weight, (0, short))
    return affine(x, weight, weights[f"{name}.bias"])


def _codes(context: Tensor, letters: int) -> Tensor:
    codes = context.long()
    usable = (codes == context) & (codes >= 0) & (codes < letters)
    if not bool(usable.all()):
        raise SettingsError(
            "model=lstm reads rows of letters (plays with --format "
            "plays:predict=letters), and these contexts are none; take model=network"
        )
    return codes


def rows_of(table: Tensor, at: Tensor) -> Tensor:
    """Each client's rows of its own table, (clients, ..., width)."""
    base = torch.arange(len(table), device=table.device) * table.shape[1]
    flat = (at + base.view(-1, *[1] * (at.dim() - 1))).reshape(-1)
    found = table.reshape(-1, table.shape[2]).index_select(0, flat)
    return found.view(*at.shape, table.shape[2])
