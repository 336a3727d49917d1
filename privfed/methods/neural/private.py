"""A neural recommender by DP-SGD, with one record = an interaction and its negatives.

Each step clips every record's gradient, over item rows, user row and dense layers
together, and noises all of them. It is a step of SGD: a private step has no use for
an optimizer that rescales what is mostly noise.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from privfed.data.world import Shape
from privfed.devices import dpsgd
from privfed.devices.batches import Batch, Samples, padded
from privfed.devices.gradients import Grads, Local, step
from privfed.devices.tape import Tape
from privfed.interfaces import Round, State
from privfed.messages import Rows
from privfed.methods.backbone import cross_entropy
from privfed.methods.neural.network import Fitted, Neural


def fit_privately(
    neural: Neural,
    items: State,
    start: State,
    samples: Samples,
    round: Round,
    learning_rate: float,
) -> Fitted:
    """What a round of noised steps makes of a shard; a changed row for every item.

    Arguments are those of ``fit``; the shard's clients are of one bucket.
    """
    rule = round.privacy
    assert rule is not None
    clients = samples.cohort.clients
    local = _copies(items, start, samples)
    rates = dict.fromkeys([*local.rows, *map(dpsgd.base, local.dense)], learning_rate)
    own = [name for name in local.dense if name.startswith("users_")]
    rates |= dict.fromkeys(own, learning_rate * rule.own_rate)
    loss = torch.zeros(len(clients))
    for number in range(rule.steps):
        draws = round.stream.of("poisson")
        batch = dpsgd.poisson(samples, rule.sampling_rate, draws, number)
        assert batch.slot is not None
        loss, grads = gradients(neural, local, batch)
        kept = dpsgd.clipped(grads, batch.slot, samples.slot.shape[2], rule.clip)
        step(local, batch, dpsgd.scaled(kept, 1 / rule.expected), rates)
        source = dpsgd.NoiseSource(round.stream.of("dp"), clients, number)
        dpsgd.add_noise(local, rates, rule.noise, source)
    spread = rule.noise * learning_rate * rule.steps**0.5
    rows = dict(_changes(local, items, samples, round, spread))
    users = {name: local.dense[name] for name in own}
    layers = {n: v for n, v in local.dense.items() if n not in own}
    return Fitted(users, rows, layers, torch.ones(len(clients)), loss / rule.expected)


def gradients(neural: Neural, local: Local, batch: Batch) -> tuple[Tensor, Grads]:
    """Each client's summed loss, (clients,), and its gradients by sample."""
    tape = Tape(local, batch)
    loss = cross_entropy(_logits(neural, tape), batch)
    return loss.detach(), tape.gradients(loss)


def _logits(neural: Neural, tape: Tape) -> Tensor:
    """Of each sample, (clients, samples)."""
    found: list[Tensor] = []
    tables = neural.tables()
    if "mf" in tables:
        found.append(tape.vector("users_mf") * tape.rows("items_mf"))
    if "mlp" in tables:
        x = torch.cat([tape.vector("users_mlp"), tape.rows("items_mlp")], 2)
        for k in range(len(neural.layers) - 1):
            x = torch.relu(tape.linear(f"mlp{k}", x))
        found.append(x)
    return tape.linear("out", torch.cat(found, 2))[..., 0]


def _copies(items: State, start: State, samples: Samples) -> Local:
    whole = torch.contiguous_format
    return Local(
        {name: table[samples.item] for name, table in items.items()},
        {name: value.clone(memory_format=whole) for name, value in start.items()},
    )


def _changes(
    local: Local, items: State, samples: Samples, round: Round, spread: float
) -> Iterator[tuple[str, Rows]]:
    cohort = samples.cohort
    sender, _ = at = samples.rows.nonzero(as_tuple=True)
    item = samples.item[at]
    for name, table in items.items():
        rows = Rows(sender, item, local.rows[name][at] - table[item])
        count, draws = cohort.shape.items, round.stream
        yield name, dpsgd.whole(name, rows, cohort.clients, count, draws, spread)


def footprint(neural: Neural, shape: Shape, positives: int, negatives: int) -> int:
    """Bytes that a private round of one client of so many positives needs."""
    samples = positives * (1 + negatives)
    width = sum(neural.tables().values())
    layers = sum(out * size for out, size in neural.dense().values())
    activations = 2 * sum(neural.layers) + 4 * width
    rows = padded(min(samples, shape.items))
    return 4 * (5 * rows * width + 3 * layers + 6 * samples * activations)
