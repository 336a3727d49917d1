"""Matrix factorization of ratings by DP-SGD, with one record = one rating.

The loss of a rating r of user vector x and item row y is
s/2 (r - <x, y>)^2 + s/2 l (|x|^2 + |y|^2), with s a method's ``scale``: a vector is
regularized once for each rating that reads it, inside what is clipped.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from privfed.data.cohort import Cohort
from privfed.devices import dpsgd
from privfed.devices.batches import Batch, Samples
from privfed.devices.gradients import Grads, Local, RowGrad, step
from privfed.interfaces import Round
from privfed.messages import Rows
from privfed.methods.factors import ITEMS, USERS, by_client, inner


def records(cohort: Cohort) -> tuple[Samples, Tensor]:
    """A shard's ratings as samples without negatives, and labels (clients, ratings).

    An item that a client rated twice has one row.
    """
    data = by_client(cohort)
    key = torch.where(data.real, data.item, cohort.shape.items)
    order = key.argsort(dim=1, stable=True)
    key = key.gather(1, order)
    new = torch.ones_like(key)
    new[:, 0] = 0
    new[:, 1:] = key[:, 1:] != key[:, :-1]
    slot = torch.zeros_like(key).scatter(1, order, new.cumsum(1))
    item = torch.zeros_like(slot).scatter(1, slot, data.item)
    rows = torch.zeros_like(data.real).scatter(1, slot, data.real)
    return Samples(cohort, item, rows, slot[:, :, None], data.real), data.label


def private_round(
    x: Tensor,
    table: Tensor,
    cohort: Cohort,
    round: Round,
    rates: Mapping[str, float],
    loss: tuple[float, float],
) -> tuple[Tensor, Rows, Tensor]:
    """User vectors, a change for every item's row, and losses after a noised round.

    ``x`` is (clients, width), ``table`` (items, width), ``loss`` (scale,
    regularization). A clipped gradient enters whole, times the rates of users and
    items; clip and noise are scaled alike.
    """
    rule = round.privacy
    assert rule is not None
    rates = {**rates, USERS: rates[USERS] * rule.own_rate}
    samples, label = records(cohort)
    start = table[samples.item]
    local = Local({ITEMS: start.clone()}, {USERS: x.clone()})
    noise = rule.clip * rule.noise_multiplier
    for number in range(rule.steps):
        draws = round.stream.of("poisson")
        batch = dpsgd.poisson(samples, rule.sampling_rate, draws, number)
        assert batch.slot is not None
        grads = gradients(local, batch, label, loss)
        step(local, batch, dpsgd.clipped(grads, batch.slot, 1, rule.clip), rates)
        source = dpsgd.NoiseSource(round.stream.of("dp"), cohort.clients, number)
        dpsgd.add_noise(local, rates, noise, source)
    sender, _ = at = samples.rows.nonzero(as_tuple=True)
    rows = Rows(sender, samples.item[at], (local.rows[ITEMS] - start)[at])
    spread = rates[ITEMS] * noise * rule.steps**0.5
    items, clients = cohort.shape.items, cohort.clients
    told = dpsgd.whole(ITEMS, rows, clients, items, round.stream, spread)
    return local.dense[USERS], told, _loss(x, start, samples, label)


def gradients(
    local: Local, batch: Batch, label: Tensor, loss: tuple[float, float]
) -> Grads:
    """Gradient of each rating's loss by its item's row and its user's vector."""
    scale, regularization = loss
    x, y = local.dense[USERS], batch.rows(local.rows[ITEMS])
    weight = batch.weight[..., None] * scale
    pull = (inner(x, y) - label)[..., None]
    mine = x[:, None]
    return Grads(
        {ITEMS: RowGrad((pull * mine + y * regularization) * weight)},
        vectors={USERS: (pull * y + mine * regularization) * weight},
    )


def _loss(x: Tensor, start: Tensor, samples: Samples, label: Tensor) -> Tensor:
    """Mean squared error of each client before the round, (clients,)."""
    told = inner(x, start).gather(1, samples.slot[:, :, 0])
    squares = (told - label).square() * samples.real
    return squares.sum(1) / samples.real.sum(1).clamp_min(1)
