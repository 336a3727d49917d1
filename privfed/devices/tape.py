"""Records a forward pass so that autograd yields factored gradients.

Weights differ by client, so ordinary parameter gradients would be one dense
tensor a client and sample. The tape asks autograd only for the gradients at the
outputs of linear layers, which is all that ``gradients`` needs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from privfed.devices.batches import Batch
from privfed.devices.gradients import Grads, LayerGrad, Local, RowGrad


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Each client's own linear layer on (clients, samples, in).

    A single output is computed as a row: as a column, BLAS would take another path,
    and give other bits, for a shard of one client.
    """
    if weight.shape[1] > 1:
        return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))
    return torch.bmm(weight, x.transpose(1, 2)).transpose(1, 2) + bias[:, None]


class Forward(Protocol):
    """What a forward pass reads: (clients, samples, ...) each."""

    def rows(self, table: str) -> Tensor:
        """Each sample's row of ``table``."""

    def linear(self, name: str, x: Tensor) -> Tensor:
        """Each client's own layer ``name`` on (clients, samples, in)."""

    def vector(self, name: str) -> Tensor:
        """A client's own vector, once for each sample."""


@dataclass(frozen=True, eq=False)
class Direct:
    """The operations of a forward pass, left to autograd: derivatives of any order."""

    samples: Mapping[str, Tensor]  # (clients, samples, width), by table
    dense: Mapping[str, Tensor]  # (clients, ...)

    def rows(self, table: str) -> Tensor:
        return self.samples[table]

    def linear(self, name: str, x: Tensor) -> Tensor:
        return affine(x, self.dense[f"{name}.weight"], self.dense[f"{name}.bias"])

    def vector(self, name: str) -> Tensor:
        size = next(iter(self.samples.values())).shape[1]
        return self.dense[name][:, None].expand(-1, size, -1)


class Tape:
    """The trainable operations of one forward pass over a shard."""

    def __init__(self, local: Local, batch: Batch) -> None:
        self.local, self.batch = local, batch
        self._rows: dict[str, Tensor] = {}
        self._layers: dict[str, tuple[Tensor, Tensor]] = {}
        self._vectors: dict[str, Tensor] = {}
        self._frozen: dict[str, Tensor] = {}
        self._projected: dict[str, str] = {}  # table -> layer that reads it

    def rows(self, table: str) -> Tensor:
        """Each sample's row of ``table``, (clients, samples, width)."""
        leaf = self.batch.rows(self.local.rows[table]).detach().requires_grad_()
        self._rows[table] = leaf
        return leaf

    def linear(self, name: str, x: Tensor, reads: tuple[str, ...] = ()) -> Tensor:
        """Apply each client's own layer ``name`` to (clients, samples, in).

        ``reads`` names tables whose rows sum to ``x``: their gradients are then
        kept as a product with this layer's weight, never written out.
        """
        if name in self.local.low_rank:
            out = self.local.low_rank[name].output(x)
        else:
            weight = self.local.dense[f"{name}.weight"]
            out = affine(x, weight, self.local.dense[f"{name}.bias"])
        if not out.requires_grad:
            out.requires_grad_()
        self._layers[name] = (x.detach(), out)
        self._projected.update(dict.fromkeys(reads, name))
        return out

    def frozen(self, name: str) -> Tensor:
        """Each sample's output of a layer with fixed input, (clients, samples, out)."""
        out = self.local.frozen[name].output(self.local.rows[name])
        self._frozen[name] = self.batch.rows(out).requires_grad_()
        return self._frozen[name]

    def vector(self, name: str) -> Tensor:
        """A client's own vector, once for each sample: (clients, samples, width)."""
        samples = self.batch.weight.shape[1]
        leaf = self.local.dense[name][:, None].expand(-1, samples, -1)
        self._vectors[name] = leaf.detach().requires_grad_()
        return self._vectors[name]

    def gradients(self, loss: Tensor) -> Grads:
        """Differentiate the sum over clients of their losses."""
        rows, vectors = {**self._rows, **self._frozen}, self._vectors
        outs = {name: out for name, (_, out) in self._layers.items()}
        nodes = [*rows.values(), *outs.values(), *vectors.values()]
        # An input that a method leaves out (an ablated modality) has gradient zero.
        found = iter(torch.autograd.grad(loss.sum(), nodes, materialize_grads=True))
        row_grads = {name: RowGrad(next(found)) for name in rows}
        deltas = {name: next(found) for name in outs}
        for table, layer in self._projected.items():
            row_grads[table] = self._row_grad(layer, deltas[layer])
        return Grads(
            row_grads,
            {n: LayerGrad(x, deltas[n]) for n, (x, _) in self._layers.items()},
            {name: next(found) for name in vectors},
        )

    def _row_grad(self, layer: str, delta: Tensor) -> RowGrad:
        if layer in self.local.low_rank:
            return RowGrad(self.local.low_rank[layer].back(delta))
        return RowGrad(delta, self.local.dense[f"{layer}.weight"].clone())
