"""Each client's own NeuMF on its own batch, forward and backward in closed form.

A client's user rows and dense layers are one vector, its rows of the item tables lie
side by side, and every gradient is written out: the steps are so small that calling
an operation costs more than what it computes. He et al., WWW 2017.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from privfed.devices.schedule import Step

_LINE = 64  # a client's vector is padded to multiples, see Optimizer


@dataclass(frozen=True)
class Layout:
    """Widths of one NeuMF: product branch, MLP branch and the MLP's outputs.

    A branch of width 0 is not there.
    """

    product: int
    mlp: int
    hidden: tuple[int, ...]

    @property
    def width(self) -> int:
        """Of an item's rows in both tables, side by side."""
        return self.product + self.mlp

    @cached_property
    def blocks(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of each block of a client's vector, in order."""
        found: dict[str, tuple[int, ...]] = {}
        if self.product:
            found["users_mf"] = (self.product,)
        if self.mlp:
            found["users_mlp"] = (self.mlp,)
            found["user"] = found["item"] = (self.hidden[0], self.mlp)
            for k, sizes in enumerate(zip(self.hidden[1:], self.hidden, strict=False)):
                found[f"weight{k + 1}"] = sizes
            for k, size in enumerate(self.hidden):
                found[f"bias{k}"] = (size,)
        if self.product:
            found["out_mf"] = (self.product,)
        if self.mlp:
            found["out_mlp"] = (self.hidden[-1],)
        return found | {"out_bias": (1,)}

    @cached_property
    def used(self) -> int:
        """Numbers of a client's vector before its padding."""
        return sum(map(prod, self.blocks.values()))

    @property
    def length(self) -> int:
        """Of a client's vector."""
        return -(-self.used // _LINE) * _LINE

    def views(self, vectors: Tensor) -> dict[str, Tensor]:
        """The blocks of (clients, length) vectors, by name, (clients, ...)."""
        sizes = [prod(shape) for shape in self.blocks.values()]
        parts = torch.split(vectors[:, : self.used], sizes, 1)
        return {
            name: part.view(-1, *shape)
            for (name, shape), part in zip(self.blocks.items(), parts, strict=True)
        }

    def pack(self, values: Mapping[str, Tensor]) -> Tensor:
        """Vectors from users' rows and dense layers, each (clients, ...)."""
        named = dict(values)
        if self.mlp:
            named["user"], named["item"] = torch.split(
                values["mlp0.weight"], self.mlp, 2
            )
            for k in range(len(self.hidden)):
                named[f"weight{k}"] = values[f"mlp{k}.weight"]
                named[f"bias{k}"] = values[f"mlp{k}.bias"]
        out = values["out.weight"][:, 0]
        named["out_mf"] = out[:, : self.product]
        named["out_mlp"] = out[:, self.product :]
        named["out_bias"] = values["out.bias"]
        flat = [named[name].flatten(1) for name in self.blocks]
        pad = out.new_zeros(len(out), self.length - self.used)
        return torch.cat([*flat, pad], 1)

    def unpack(self, vectors: Tensor) -> dict[str, Tensor]:
        """Users' rows and dense layers from vectors; the inverse of ``pack``."""
        block = self.views(vectors)
        found = {n: v for n, v in block.items() if n.startswith("users_")}
        if self.mlp:
            found["mlp0.weight"] = torch.cat([block["user"], block["item"]], 2)
            for k in range(1, len(self.hidden)):
                found[f"mlp{k}.weight"] = block[f"weight{k}"]
            for k in range(len(self.hidden)):
                found[f"mlp{k}.bias"] = block[f"bias{k}"]
        both = [block[name] for name in ("out_mf", "out_mlp") if name in block]
        found["out.weight"] = torch.cat(both, 1)[:, None]
        found["out.bias"] = block["out_bias"]
        return found


class Network:
    """The first few clients' networks; their vectors may change between calls."""

    def __init__(self, layout: Layout, vectors: Tensor, lanes: int) -> None:
        clients = len(vectors)
        self.layout, self.lanes, self.clients = layout, lanes, clients
        block = layout.views(vectors)
        self._pad = vectors.new_zeros(clients, layout.length - layout.used)
        self._ones = vectors.new_ones(clients, 1, lanes)
        self._out_bias = block["out_bias"]
        self._rows = vectors.new_empty(clients * lanes, layout.width)
        by_client = self._rows.view(clients, lanes, layout.width)
        self._mf = by_client[:, :, : layout.product]
        self._mf_t = self._mf.transpose(1, 2)
        self._mlp = by_client[:, :, layout.product :]
        if layout.product:
            self._user_mf, self._out_mf = block["users_mf"], block["out_mf"]
        if layout.mlp:
            self._tower(block, vectors)

    def _tower(self, block: Mapping[str, Tensor], like: Tensor) -> None:
        hidden = self.layout.hidden
        self._user = block["users_mlp"][:, None]  # (clients, 1, width)
        self._from_user = block["user"]
        self._from_user_t = block["user"].transpose(1, 2)
        self._weight = [block["item"]]
        self._weight += [block[f"weight{k}"] for k in range(1, len(hidden))]
        self._weight_t = [w.transpose(1, 2) for w in self._weight]
        self._bias = [block[f"bias{k}"][:, None] for k in range(len(hidden))]
        self._hidden = [
            like.new_empty(self.clients, self.lanes, size) for size in hidden
        ]
        self._out_mlp = block["out_mlp"][:, None]  # (clients, 1, last)

    def logits(self, rows: Tensor, at: Tensor) -> Tensor:
        """Of each client's batch, (clients, lanes), from its rows of the tables."""
        torch.index_select(rows, 0, at, out=self._rows)
        out = self._out_bias[:, :, None]
        if self.layout.product:
            self._both = (self._user_mf * self._out_mf)[:, None]
            out = torch.baddbmm(out, self._both, self._mf_t)
        if self.layout.mlp:
            x = self._mlp
            bias = torch.baddbmm(self._bias[0], self._user, self._from_user_t)
            for k, y in enumerate(self._hidden):
                before = self._bias[k] if k else bias
                torch.baddbmm(before, x, self._weight_t[k], out=y).relu_()
                x = y
            out = torch.baddbmm(out, self._out_mlp, x.transpose(1, 2))
        return out[:, 0]

    def slopes(self, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of rows (clients, lanes, width) and vectors, from the logits'.

        The batch is that of the last call of ``logits``.
        """
        row, column = delta[:, None], delta[:, :, None]
        rows: list[Tensor] = []
        users: list[Tensor] = []
        outs: list[Tensor] = []
        if self.layout.product:
            seen = torch.bmm(row, self._mf)[:, 0]
            users.append(self._out_mf * seen)
            outs.append(self._user_mf * seen)
            rows.append(torch.bmm(column, self._both))
        layers: list[Tensor] = []
        if self.layout.mlp:
            outs.append(torch.bmm(row, self._hidden[-1])[:, 0])
            user, layers, change = self._back(column)
            users.append(user)
            rows.append(change)
        bias = torch.bmm(row, self._ones.transpose(1, 2))[:, 0]
        vector = torch.cat([*users, *layers, *outs, bias, self._pad], 1)
        return (torch.cat(rows, 2) if len(rows) > 1 else rows[0]), vector

    def _back(self, column: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """Gradients of the user's row, the layers and the items' rows."""
        delta = torch.bmm(column, self._out_mlp)
        weights: list[Tensor] = []
        biases: list[Tensor] = []
        for k in range(len(self._hidden) - 1, -1, -1):
            delta = torch.ops.aten.threshold_backward(delta, self._hidden[k], 0)
            below = self._hidden[k - 1] if k else self._mlp
            weights.append(torch.bmm(delta.transpose(1, 2), below).flatten(1))
            biases.append(torch.bmm(self._ones, delta))
            delta = torch.bmm(delta, self._weight[k])
        first = biases[-1]  # (clients, 1, out) of the layer that reads the user
        user = torch.bmm(first, self._from_user)[:, 0]
        weights.append(torch.bmm(first.transpose(1, 2), self._user).flatten(1))
        layers = [*reversed(weights), *(b[:, 0] for b in reversed(biases))]
        return user, layers, delta


def merge(slope: Tensor, step: Step) -> Tensor:
    """Add equal samples' row gradients (samples, width) to their first's, in place."""
    if len(step.twice):
        slope.index_add_(0, step.onto, slope[step.twice])
        slope.index_fill_(0, step.twice, 0.0)
    return slope


def clip(parts: Sequence[Tensor], bound: float) -> None:
    """Bound the norm over all parts (clients, ...) of each client, in place.

    As ``torch.nn.utils.clip_grad_norm_`` does for one client.
    """
    norms = [torch.linalg.vector_norm(part.flatten(1), dim=1) for part in parts]
    norm = torch.stack(norms).square_().sum(0).sqrt_()
    factor = (bound / (norm + 1e-6)).clamp_max_(1.0)
    for part in parts:
        part.mul_(factor.view(-1, *[1] * (part.dim() - 1)))
