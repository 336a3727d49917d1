"""The released example of FedMF, Chai et al. 2020, beside its log.

Seven users and the forty items rated most of MovieLens latest-small; nothing is drawn.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from paillier import PRECISION, library
from torch import Tensor

from privfed.channels.encrypted.channel import Encrypted
from privfed.channels.plain import Plain
from privfed.data.cohort import Cohort, cohort_of
from privfed.data.world import Pairs, World
from privfed.interfaces import Channel, Opening, Plan, Round, State
from privfed.messages import Uploads
from privfed.methods.factors import ITEMS
from privfed.methods.fedmf import FedMF
from privfed.sampling import Sampling
from privfed.seeds import Seeds

_MB = 2**20  # as the log counts
# The result files of FedMF's released code: loss after 1, 2, 3 and 175 iterations, test
# RMSE, upload of a user in MB. "In turn" is its Regular_MF: every rating moves both
# vectors at once, on one machine.
LOGS: Mapping[str, tuple[Sequence[float | None], float, float | None]] = {
    "full": ((16.264956, 16.250140, 16.233785, 0.7329104), 1.3965372, 1.2512),
    "part": ((16.264956, 16.250140, 16.233785, 0.7329104), 1.3965372, 0.4871),
    "in turn": ((None, None, None, 0.7326559), 1.3969165, None),
}


@dataclass(frozen=True)
class Curve:
    """FedMF's example under one way to add up."""

    name: str
    losses: Sequence[float | None]  # after 1, 2, 3 and 175 iterations
    rmse: float | None
    megabytes: float | None  # a user's upload
    seconds: float | None = None  # an iteration


def curves(ratings: str, iterations: int) -> Iterator[Curve]:
    """The example beside its log; ``iterations`` by Paillier."""
    world = _example(ratings)
    own = Encrypted(min_cohort=2, workers=1)  # seven users are what there is
    for upload in ("full", "part"):
        yield Curve(f"log, {upload}", *LOGS[upload])
    yield learned("this package, plain, part", world, Plain(), 175)
    yield learned("this package, he, part", world, own, 175)
    yield learned("this package, he, full", world, own, 175, "full")
    yield by_paillier(world, iterations)
    yield Curve("log, in turn", *LOGS["in turn"])
    yield in_turn(world)


def _example(ratings: str) -> World:
    """The ten users of benchmarks/factorization.py, of whom seven have enough."""
    sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
    from factorization import ten_users  # type: ignore[import-not-found]

    world: World = ten_users(ratings)
    return world


def learned(
    name: str, world: World, channel: Channel, iterations: int, upload: str = "part"
) -> Curve:
    """FedMF's losses, with uploads carried by a channel."""
    click.echo(name, err=True)
    seeds, ids, bytes_up = Seeds(0), world.eligible, 0
    method = FedMF(upload=upload)  # type: ignore[arg-type]
    plan = Plan(world.shape, iterations, iterations, 1.0, method, len(ids), Sampling())
    start = time.process_time()
    with channel.ready(plan) as ready:

        def carry(uploads: Uploads) -> Tensor:
            nonlocal bytes_up
            opened = ready.open(Opening(0, world.shape, ids, seeds("channel")))
            delivered = ready.close(ready.send(opened, uploads)[0])
            bytes_up = delivered.spent.bytes_up
            return delivered.total.tables[ITEMS]

        losses, rmse = _iterate(world, method, carry, iterations)
    seconds = (time.process_time() - start) / iterations
    return Curve(name, losses, rmse, bytes_up / len(ids) / _MB, seconds)


def by_paillier(world: World, iterations: int) -> Curve:
    """FedMF's losses with every number of an upload encrypted by itself."""
    public, private = library().generate_paillier_keypair(n_length=1024)
    sizes: list[float] = []

    def carry(uploads: Uploads) -> Tensor:
        click.echo("Paillier 1024, one iteration", err=True)
        rows = uploads.rows[ITEMS]
        sums: dict[tuple[int, int], Any] = {}
        sent = 0
        for item, value in zip(rows.item.tolist(), rows.value.tolist(), strict=True):
            for column, number in enumerate(value):
                one = public.encrypt(number, precision=PRECISION)
                sent += sys.getsizeof(one.ciphertext()) + sys.getsizeof(one.exponent)
                at = (item, column)
                sums[at] = sums[at] + one if at in sums else one
        sizes.append(sent / len(uploads.clients) / _MB)
        table = torch.zeros(world.shape.items, rows.value.shape[1])
        for at, number in sums.items():
            table[at] = private.decrypt(number)
        return table

    start = time.process_time()
    losses, _ = _iterate(world, FedMF(), carry, iterations)
    seconds = (time.process_time() - start) / iterations
    whole = world.shape.items * world.shape.clients / len(world.train.item)
    name = f"Paillier 1024, part (full: {sizes[-1] * whole:.4f} MB)"
    return Curve(name, [*losses[:3], None], None, sizes[-1], seconds)


def _iterate(
    world: World, method: FedMF, carry: Callable[[Uploads], Tensor], iterations: int
) -> tuple[list[float], float]:
    """Losses after iterations 1, 2, 3 and the last, and the test RMSE."""
    seeds, ids = Seeds(0), world.eligible
    cohort = cohort_of(world, ids)
    model, private = method.init(world.shape, seeds("init"))
    losses = []
    for number in range(iterations):
        round = Round(number, seeds("train", number), seeds("once"))
        trained = method.train(model, private, cohort, round)
        model = {ITEMS: model[ITEMS] + carry(trained.uploads)}
        private = {n: v.clone() for n, v in private.items()}
        for name, value in trained.private.items():
            private[name][ids] = value
        if number < 3 or number == iterations - 1:
            train = world.train.of(ids)
            losses.append(_error(method, model, private, cohort, train))
    test = _error(method, model, private, cohort, world.test.of(ids))
    return losses, test**0.5


def _error(
    method: FedMF, model: State, private: State, cohort: Cohort, pairs: Pairs
) -> float:
    guess = method.predict(model, private, cohort, pairs)
    return float((guess - pairs.label).double().square().mean())


def in_turn(world: World) -> Curve:
    """Both vectors move with every rating, on one machine: the log's "Regular_MF"."""
    pairs, test = world.train.of(world.eligible), world.test.of(world.eligible)
    x = torch.full((world.shape.clients, 100), 0.01, dtype=torch.float64)
    y = torch.full((world.shape.items, 100), 0.01, dtype=torch.float64)

    def loss(of: Pairs) -> float:
        guess = (x[of.sender] * y[of.item]).sum(1)
        return float((of.label - guess).square().mean())

    losses: list[float] = []
    for _ in range(175):
        for u, i, rating in zip(pairs.sender, pairs.item, pairs.label, strict=True):
            error = rating.double() - x[u] @ y[i]
            x[u] += 1e-3 * 2 * (error * y[i] - 1e-4 * x[u])
            y[i] += 1e-3 * 2 * (error * x[u] - 1e-4 * y[i])
        losses.append(loss(pairs))
    return Curve(
        "this package, in turn", [*losses[:3], losses[-1]], loss(test) ** 0.5, None
    )
