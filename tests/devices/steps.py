"""Local copies and batches for tests of single steps."""

import torch
from torch import Generator, Tensor

from privfed.data.world import World
from privfed.devices.batches import Batch, Samples, collect
from privfed.devices.gradients import Local, RowGrad
from privfed.interfaces import START, Round, State
from privfed.methods.local_sgd import LocalSGD
from privfed.seeds import Seeds
from tests.worlds import everyone

SEEDS = Seeds(9)
ROUND = Round(2, SEEDS("train", 2), SEEDS("once"))


def states_of(method: LocalSGD, world: World) -> tuple[State, State]:
    """A model and private state in which no two clients are alike."""
    rng = Generator().manual_seed(4)
    model, private = method.init(world.shape, SEEDS("init"))
    return model, {
        n: v + 0.2 * torch.randn(v.shape, generator=rng) for n, v in private.items()
    }


def local_of(method: LocalSGD, world: World) -> tuple[Local, Samples]:
    """Everyone's local copies and samples."""
    model, private = states_of(method, world)
    draws = ROUND.stream.of("negatives")
    samples = collect(everyone(world), method.sampling(), draws)
    rows: dict[str, Tensor] = {}
    dense: dict[str, Tensor] = {}
    for part in method.parts(world.shape):
        if part.kind != "rows":
            continue
        name = part.name
        if part.private:
            table = model[name + START] + private[name]
            rows[name] = table.gather(
                1, samples.item[..., None].expand(-1, -1, table.shape[2])
            )
        else:
            rows[name] = model[name][samples.item]
    for name, value in private.items():
        if name not in rows:
            dense[name] = value.clone()
    for name, value in model.items():
        if name not in rows and not name.endswith(START):
            dense[name] = value.expand(world.shape.clients, *value.shape).clone()
    return Local(rows, dense), samples


def batch_of(samples: Samples, full: bool) -> Batch:
    """One batch of all samples, or the first of a shuffled epoch."""
    if full:
        return samples.full()
    return next(samples.mini(40, SEEDS("shuffle"), 0))


def dense_rows(grad: RowGrad) -> Tensor:
    """A row gradient written out."""
    return grad.coef if grad.basis is None else grad.coef @ grad.basis
