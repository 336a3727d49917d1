"""Federated BPR by DP-SGD, with one record = one interaction and its negatives.

The server adds clients' steps up, so an interaction's clipped gradient enters whole and
not divided by their expected number; clip and noise are scaled alike.
"""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from privfed.data.cohort import Cohort
from privfed.devices import dpsgd
from privfed.devices.batches import Batch, Samples, aligned
from privfed.devices.gradients import Grads, Local, RowGrad, step
from privfed.interfaces import Round
from privfed.messages import Rows
from privfed.methods.factors import ITEMS, USERS, inner


def private_steps(
    x: Tensor, table: Tensor, samples: Samples, round: Round, learning_rate: float
) -> Local:
    """User vectors and item rows after all noised steps of a round."""
    rule, group = round.privacy, samples.slot.shape[2]
    assert rule is not None
    local = Local({ITEMS: table.clone()}, {USERS: x.clone()})
    rates = {ITEMS: learning_rate, USERS: learning_rate * rule.own_rate}
    for number in range(rule.steps):
        draws = round.stream.of("poisson")
        batch = dpsgd.poisson(samples, rule.sampling_rate, draws, number)
        assert batch.slot is not None
        grads = pair_gradients(local, batch, group)
        kept = dpsgd.clipped(grads, batch.slot, group, rule.clip)
        step(local, batch, kept, rates)
        noise = dpsgd.NoiseSource(round.stream.of("dp"), samples.cohort.clients, number)
        dpsgd.add_noise(local, rates, rule.clip * rule.noise_multiplier, noise)
    return local


def pair_gradients(local: Local, batch: Batch, group: int) -> Grads:
    """Gradient of each interaction's -sum log sigmoid(<u, v_p - v_n>), by sample.

    An interaction's samples stand together, ``group`` of them, the positive first.
    """
    x, rows = local.dense[USERS], batch.rows(local.rows[ITEMS])
    clients, count = batch.item.shape
    each = inner(x, rows).view(clients, -1, group)
    margin = (each[..., :1] - each[..., 1:]).flatten(1)
    push = aligned(torch.sigmoid, -margin).view(clients, -1, group - 1)
    slope = torch.cat([-push.sum(2, keepdim=True), push], 2).view(clients, count)
    slope = (slope * (batch.weight > 0))[..., None]
    basis = x[:, None].clone()  # a step must use the vector that made the gradient
    return Grads({ITEMS: RowGrad(slope, basis)}, vectors={USERS: slope * rows})


def whole_change(
    change: Tensor, at: tuple[Tensor, Tensor], cohort: Cohort, round: Round, rate: float
) -> Rows:
    """A row for every item: those touched, and for all others the steps' noise.

    ``at`` is (sender, item) of ``change``.
    """
    rule = round.privacy
    assert rule is not None
    spread = rate * rule.clip * rule.noise_multiplier * rule.steps**0.5
    rows, items = Rows(*at, change), cohort.shape.items
    return dpsgd.whole(ITEMS, rows, cohort.clients, items, round.stream, spread)


def mean_loss(x: Tensor, table: Tensor, samples: Samples) -> Tensor:
    """Each client's mean loss before the first step, (clients,)."""
    score, count = inner(x, table), samples.slot.shape[2] - 1
    each = score.gather(1, samples.slot.flatten(1)).view(samples.slot.shape)
    margin = (each[..., :1] - each[..., 1:]).flatten(1)
    real = samples.real[..., None].expand(-1, -1, count).flatten(1)
    lost = aligned(softplus, -margin) * real
    return lost.sum(1) / real.sum(1).clamp_min(1)
