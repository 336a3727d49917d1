"""DP-SGD on the device, for single interactions.

Abadi et al., CCS 2016, with one record = one positive interaction and the
negatives drawn for it. Every trainable tensor is clipped together and noised, the
private ones too: an un-noised private vector would carry one interaction into
the clipped gradients of all others, and the sensitivity would no longer be the
clipping norm.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from privfed.devices.batches import Batch, Samples
from privfed.devices.gradients import Grads, LayerGrad, Local, RowGrad
from privfed.messages import Rows, every
from privfed.seeds import Stream


class Entangled:
    """A method whose devices compute nothing that one interaction alone decides.

    No gradient can then be clipped by interaction. ``entangled`` says why, as the end
    of a sentence about the method.
    """

    entangled: ClassVar[str]


@dataclass(frozen=True)
class InteractionDP:
    """Clip each interaction's gradient, add noise to the sum, divide by a constant.

    ``expected`` is the fixed denominator. It is public: the true number of
    interactions of a client is itself what the guarantee protects. ``own_rate``
    multiplies the learning rate of what one client alone trains.
    """

    clip: float
    noise_multiplier: float
    sampling_rate: float
    steps: int  # local steps in a round
    expected: float
    own_rate: float = 1.0

    @property
    def noise(self) -> float:
        """Standard deviation of the noise on one step's mean gradient."""
        return self.clip * self.noise_multiplier / self.expected


def poisson(samples: Samples, rate: float, stream: Stream, number: int) -> Batch:
    """Take each interaction, with its negatives, with chance ``rate``.

    A sample's weight is its share of its interaction's mean loss.
    """
    clients, positives, group = samples.slot.shape
    draws = stream.of("step", number)
    chance = draws.uniform(
        samples.cohort.clients[:, None], torch.arange(positives)[None]
    )
    taken = (samples.real & (chance < rate))[:, :, None].expand_as(samples.slot)
    target = torch.zeros_like(samples.slot, dtype=torch.float32)
    target[..., 0] = 1.0
    slot = samples.slot.flatten(1)
    return Batch(
        slot,
        target.flatten(1),
        taken.flatten(1).float() / group,
        torch.ones(clients, 1),
        samples.item.gather(1, slot),
        number,
    )


def norms(grads: Grads, slot: Tensor, group: int) -> Tensor:
    """L2 norm of each interaction's whole gradient, (clients, interactions).

    Gram matrices over the few samples of one interaction, so that no per-sample
    gradient is written out (the "ghost norm" of Li et al., ICLR 2022).
    """
    clients = len(slot)

    def by_group(x: Tensor) -> Tensor:  # (clients, interactions, group, width)
        return x.reshape(clients, -1, group, x.shape[2])

    def gram(x: Tensor, metric: Tensor | None = None) -> Tensor:
        x = by_group(x)
        y = x if metric is None else x @ metric[:, None]
        return y @ x.transpose(2, 3)

    ids = slot.reshape(clients, -1, group)
    same = (ids[..., :, None] == ids[..., None, :]).float()
    squares = torch.zeros(clients, ids.shape[1], device=slot.device)
    for row in grads.rows.values():
        basis = row.basis
        metric = None if basis is None else basis @ basis.transpose(1, 2)
        squares += (gram(row.coef, metric) * same).sum((2, 3))
    for layer in grads.layers.values():
        inner = gram(layer.delta)
        squares += (inner * (gram(layer.input) + 1.0)).sum((2, 3))  # +1 is the bias
    for vector in grads.vectors.values():
        squares += by_group(vector).sum(2).square().sum(2)
    return squares.clamp_min(0).sqrt()


def clipped(grads: Grads, slot: Tensor, group: int, clip: float) -> Grads:
    """Scale each interaction's gradient to norm at most ``clip``."""
    factor = (clip / norms(grads, slot, group).clamp_min(1e-12)).clamp_max(1.0)
    each = factor.repeat_interleave(group, dim=1)[..., None]
    return Grads(
        {n: RowGrad(g.coef * each, g.basis) for n, g in grads.rows.items()},
        {n: LayerGrad(g.input, g.delta * each) for n, g in grads.layers.items()},
        {n: g * each for n, g in grads.vectors.items()},
    )


def scaled(grads: Grads, factor: float) -> Grads:
    """Multiply a gradient by a number."""
    return Grads(
        {n: replace(g, coef=g.coef * factor) for n, g in grads.rows.items()},
        {n: replace(g, delta=g.delta * factor) for n, g in grads.layers.items()},
        {n: g * factor for n, g in grads.vectors.items()},
    )


def add_noise(
    local: Local, rate: Mapping[str, float], noise: float, draw: "NoiseSource"
) -> None:
    """Noise every trained number of a shard after one step, in place."""
    for name, table in local.rows.items():
        table.add_(draw(f"rows {name}", table), alpha=noise * rate[name])
    for name, value in local.dense.items():
        value.add_(draw(f"dense {name}", value), alpha=noise * rate[base(name)])


def whole(
    name: str, rows: Rows, clients: Tensor, items: int, stream: Stream, spread: float
) -> Rows:
    """A row for every item: those given, and noise for all others.

    The steps' noise on a row that no sample touches never meets data, so one draw
    with the summed variance, of deviation ``spread``, has the same distribution.
    ``stream`` is the round's. A round's tables need names of their own: two tables
    under one name would get the same noise, and noise that is known twice hides less.
    """
    source = NoiseSource(stream.of("dp rest"), clients, 0)
    size = (len(clients), items, rows.value.shape[1])
    value = source(name, rows.value.new_empty(size)) * spread
    value[rows.sender, rows.item] = rows.value
    return every(value)


def base(name: str) -> str:
    """The tensor group that a learning rate is given for: ``head.bias`` -> head."""
    return name.removesuffix(".weight").removesuffix(".bias")


@dataclass(frozen=True)
class NoiseSource:
    """Standard normal noise for a shard, from each client's own generator."""

    stream: Stream
    clients: Tensor
    number: int  # local step

    def __call__(self, what: str, like: Tensor) -> Tensor:
        """Noise shaped like ``like``, whose first axis is clients."""
        out = torch.empty_like(like)
        self._fill(what, list(out))
        return out

    def ragged(self, what: str, counts: Tensor, like: Tensor) -> Tensor:
        """Noise shaped like ``like``, whose rows are laid end to end by client."""
        out = torch.empty_like(like)
        self._fill(what, list(torch.split(out, counts.tolist())))
        return out

    def _fill(self, what: str, parts: list[Tensor]) -> None:
        self.stream.of(what, self.number).normal(self.clients, parts)
