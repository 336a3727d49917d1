"""Gradients of a shard in factored form, and the steps that use them.

Every trainable tensor of a recommender is one of three kinds: rows of an item
table, a linear layer, or a vector that all samples of a client share. Their
gradients are kept per sample and factored, (input, output gradient), so that one
piece of code sums them, clips them by interaction, or hands them to an attack.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from privfed.devices.batches import Batch
from privfed.devices.frozen import Frozen
from privfed.devices.low_rank import LowRank


@dataclass(frozen=True, eq=False)
class RowGrad:
    """Gradient of each sample's row: ``coef @ basis``, or ``coef`` alone."""

    coef: Tensor  # (clients, samples, rank)
    basis: Tensor | None = None  # (clients, rank, width)


@dataclass(frozen=True, eq=False)
class LayerGrad:
    """Gradient of a linear layer: sum over samples of ``delta`` (outer) ``input``."""

    input: Tensor  # (clients, samples, in)
    delta: Tensor  # (clients, samples, out)


@dataclass(frozen=True, eq=False)
class Grads:
    """Gradients of each client's mean loss, by tensor name."""

    rows: Mapping[str, RowGrad] = field(default_factory=dict)
    layers: Mapping[str, LayerGrad] = field(default_factory=dict)
    vectors: Mapping[str, Tensor] = field(default_factory=dict)  # (clients, samples, d)


@dataclass(frozen=True, eq=False)
class Local:
    """A shard's own copies of everything that it trains; stepped in place.

    A linear layer ``name`` is the pair ``name.weight`` (clients, out, in) and
    ``name.bias`` (clients, out). A layer in ``frozen`` is a row table instead; one in
    ``low_rank`` keeps its change apart.
    """

    rows: dict[str, Tensor]  # (clients, rows, width)
    dense: dict[str, Tensor]  # (clients, ...)
    frozen: Mapping[str, Frozen] = field(default_factory=dict)
    low_rank: Mapping[str, LowRank] = field(default_factory=dict)


def step(local: Local, batch: Batch, grads: Grads, rate: Mapping[str, float]) -> None:
    """Take one SGD step; a tensor whose name ``rate`` lacks stays as it is.

    Rows step last: a layer's recorded input may be the very table that they change.
    """
    for name, layer in grads.layers.items():
        if name in rate and name in local.low_rank:
            local.low_rank[name].step(layer.input, layer.delta, rate[name])
        elif name in rate:
            weight, bias = local.dense[f"{name}.weight"], local.dense[f"{name}.bias"]
            weight.baddbmm_(layer.delta.transpose(1, 2), layer.input, alpha=-rate[name])
            bias.sub_(layer.delta.sum(1), alpha=rate[name])
    for name, delta in grads.vectors.items():
        if name in rate:
            local.dense[name].sub_(delta.sum(1), alpha=rate[name])
    for name, row in grads.rows.items():
        if name in rate:
            _step_rows(local.rows[name], batch.slot, row, rate[name])


def _step_rows(table: Tensor, slot: Tensor | None, row: RowGrad, rate: float) -> None:
    if slot is None:
        if row.basis is None:
            table.sub_(row.coef, alpha=rate)
        else:
            table.baddbmm_(row.coef, row.basis, alpha=-rate)
        return
    change = row.coef if row.basis is None else torch.bmm(row.coef, row.basis)
    clients, rows, width = table.shape
    flat = slot + torch.arange(clients, device=table.device)[:, None] * rows
    table.view(-1, width).index_add_(
        0, flat.reshape(-1), change.reshape(-1, width), alpha=-rate
    )
