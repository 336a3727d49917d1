"""federeco's protocol: how good averaging a whole NeuMF gets, and what a round costs.

federeco sends the whole model, the rows of all users included, to 50 clients of a
queue, trains it there for 3 epochs with AdamW and averages what comes back.

    python benchmarks/federeco.py curve --data ml-1m
    python benchmarks/federeco.py curve --data ml-1m --clients 10 --clients 100
    python benchmarks/federeco.py curve --data ml-1m --set user_rows=owner
    python benchmarks/federeco.py central --data ml-1m
    python benchmarks/federeco.py speed --data ml-1m

``curve`` tells HR@10 and NDCG@10 of the server's model by rounds done, one column for
each combination; ``alike`` is the mean correlation of a client's scores with the mean
of all clients', 1 where everybody is served the same ranking. ``central`` trains the
same network on everybody's data in one place (He et al., WWW 2017: Adam, batches of
256, new negatives every epoch). ``speed`` times a round beside a plain loop as
federeco's code has it: a copy of the whole model for each client, ``DataLoader``,
autograd and ``torch.optim.AdamW``. All on one thread.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, TensorDataset

from privfed.channels.plain import Plain
from privfed.choices import choose
from privfed.cli.progress import Line
from privfed.data.cohort import Cohort, cohort_of, part_of
from privfed.data.load import DataSettings, load
from privfed.data.world import World
from privfed.devices.batches import collect
from privfed.devices.negatives import Negatives
from privfed.evaluation.judge import task_of
from privfed.evaluation.marks import Marks
from privfed.evaluation.protocol import Protocol
from privfed.evaluation.task import Task
from privfed.interfaces import Opening, Round, State
from privfed.machine import Machine
from privfed.methods.federeco import Federeco
from privfed.methods.neural.network import Neural
from privfed.metrics.score import means
from privfed.rounds import Setup, run
from privfed.sampling import Sampling
from privfed.seeds import Seeds

METRICS = ("hr@10", "ndcg@10")
NAME = "fedncf_federeco"
Pair = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """Figures by rounds or epochs done."""

    name: str
    points: Mapping[int, Pair]
    popularity: Pair
    alike: float  # correlation of a client's scores with all clients' mean, at the end
    seconds: float  # processor seconds of a round or epoch, evaluation left out


@click.group(help=__doc__)
def main() -> None:
    torch.set_num_threads(1)


def _data(command: Callable[..., None]) -> Callable[..., None]:
    """The options that all commands share."""
    command = click.option("--data", default="ml-1m", show_default=True)(command)
    command = click.option("--seed", default=0, show_default=True)(command)
    return click.option("--json", "as_json", is_flag=True, help="Rows as JSON.")(
        command
    )


@main.command()
@_data
@click.option("--rounds", default=400, show_default=True)
@click.option("--clients", multiple=True, default=(50,), show_default=True)
@click.option("--epochs", multiple=True, default=(3,), show_default=True)
@click.option("--every", default=25, show_default=True, help="Rounds to a point.")
@click.option("--set", "changes", multiple=True, help="A setting of the method: k=v.")
def curve(
    data: str,
    seed: int,
    as_json: bool,
    rounds: int,
    clients: Sequence[int],
    epochs: Sequence[int],
    every: int,
    changes: Sequence[str],
) -> None:
    """HR@10 / NDCG@10 over rounds, for each number of clients and epochs."""
    world, found = load(DataSettings(data, features=())).world, []
    for count, local in product(clients, epochs):
        spec = f"{NAME}:" + ",".join([f"epochs={local}", *changes])
        setup = Setup(
            world,
            choose("method", spec).part,
            Plain(),
            sampling=Sampling("queue", count),
            protocol=Protocol(every=every),
            rounds=rounds,
            seed=seed,
        )
        found.append(_curve(f"n={count}, e={local}", setup))
    _tell(", ".join([data, *changes]), "round", found, as_json)


def _curve(name: str, setup: Setup) -> Curve:
    with Line(setup.seed, 1) as progress:
        outcome = run(setup, Machine(workers=1), None, partial(progress, setup.seed))
    state = outcome.state
    points = {
        int(row["round"]): (row[f"utility.{METRICS[0]}"], row[f"utility.{METRICS[1]}"])
        for row in state.log
        if f"utility.{METRICS[0]}" in row
    }
    assert isinstance(setup.method, Federeco)
    alike = _alike(setup.method, setup.world, state.model)
    seconds = (state.costs.client_seconds + state.costs.server_seconds) / setup.rounds
    return Curve(name, points, _floor(outcome.task), alike, seconds)


def _floor(task: Task) -> Pair:
    """What popularity alone reaches."""
    return _pair(task, task.references()["popularity"])


def _pair(task: Task, marks: Marks) -> Pair:
    found = means(list(task.scores(marks).items()))
    return found[METRICS[0]], found[METRICS[1]]


def _alike(method: Federeco, world: World, model: State) -> float:
    """Mean correlation of a client's scores of all items with all clients' mean."""
    some = cohort_of(world, world.eligible[:: max(1, len(world.eligible) // 500)])
    scores = method.score(model, {}, some)
    both = torch.cat([scores.mean(0, keepdim=True), scores])
    return float(torch.corrcoef(both)[0, 1:].mean())


@main.command()
@_data
@click.option("--epochs", default=12, show_default=True)
@click.option("--batch", default=256, show_default=True)
@click.option("--std", default=0.01, show_default=True, help="Of first embeddings.")
def central(
    data: str, seed: int, as_json: bool, epochs: int, batch: int, std: float
) -> None:
    """The same network trained on everybody's data in one place."""
    world = load(DataSettings(data, features=())).world
    method = Federeco(std=std)
    model, _ = method.init(world.shape, Seeds(seed)("init"))
    weights = {name: value.requires_grad_() for name, value in model.items()}
    optimizer = torch.optim.Adam(weights.values(), 1e-3, fused=True)
    rng = torch.Generator().manual_seed(seed)
    task = task_of(method, world, Protocol(), Seeds(seed))
    points, seconds = {}, 0.0
    for epoch in range(1, epochs + 1):
        began = time.process_time()
        _epoch(method.neural, weights, optimizer, _samples(world, rng), batch)
        seconds += time.process_time() - began
        model = {name: value.detach() for name, value in weights.items()}
        points[epoch] = _pair(task, _measured(task, world, model))
        click.echo(f"epoch {epoch}: {points[epoch]}", err=True)
    alike = _alike(method, world, model)
    found = Curve("NeuMF", points, _floor(task), alike, seconds / epochs)
    _tell(f"{data}, all data in one place", "epoch", [found], as_json)


def _samples(world: World, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Users, items and labels of an epoch, shuffled, with new negatives."""
    user, item = world.train.owner, world.train.item
    seen = torch.zeros(world.shape.clients, world.shape.items, dtype=torch.bool)
    seen[user, item] = True
    users = user.repeat(4)
    drawn = torch.randint(world.shape.items, users.shape, generator=rng)
    while len(bad := seen[users, drawn].nonzero()[:, 0]):
        drawn[bad] = torch.randint(world.shape.items, bad.shape, generator=rng)
    order = torch.randperm(5 * len(user), generator=rng)
    label = torch.cat([torch.ones(len(user)), torch.zeros(len(users))])
    every = (torch.cat([user, users]), torch.cat([item, drawn]), label)
    return every[0][order], every[1][order], every[2][order]


def _epoch(
    neural: Neural,
    weights: State,
    optimizer: torch.optim.Optimizer,
    samples: tuple[Tensor, Tensor, Tensor],
    batch: int,
) -> None:
    parts = (torch.split(one, batch) for one in samples)
    for user, item, label in zip(*parts, strict=True):
        loss = binary_cross_entropy_with_logits(
            _logits(neural, weights, user, item), label
        )
        optimizer.zero_grad(set_to_none=False)
        torch.autograd.backward(loss)
        optimizer.step()


def _logits(neural: Neural, weights: State, user: Tensor, item: Tensor) -> Tensor:
    """NeuMF as its paper writes it."""

    def row(table: str, at: Tensor) -> Tensor:
        return nn.functional.embedding(at, weights[table])

    def layer(name: str, x: Tensor) -> Tensor:
        return nn.functional.linear(
            x, weights[f"{name}.weight"], weights[f"{name}.bias"]
        )

    x = torch.cat([row("users_mlp", user), row("items_mlp", item)], 1)
    for name in list(neural.dense())[:-1]:
        x = layer(name, x).relu()
    z = row("users_mf", user) * row("items_mf", item)
    return layer("out", torch.cat([z, x], 1))[:, 0]


def _measured(task: Task, world: World, model: State) -> Marks:
    """The ranks of all test pairs."""
    marks = Marks.none(world.test)
    for clients in task.chunks():
        _, test = task.measure(model, {}, cohort_of(world, clients))
        marks.put(clients, test)
    return marks


@main.command()
@_data
@click.option("--clients", default=50, show_default=True)
@click.option("--rounds", default=3, show_default=True)
def speed(data: str, seed: int, as_json: bool, clients: int, rounds: int) -> None:
    """Processor seconds of a round, beside one client after the other."""
    world, method = load(DataSettings(data, features=())).world, Federeco()
    model, _ = method.init(world.shape, Seeds(seed)("init"))
    rows = []
    for number in range(rounds):
        chosen = Sampling("queue", clients).clients(number, world.eligible, Seeds(seed))
        cohort = cohort_of(world, chosen)
        batches = -(-cohort.counts * 5 // method.batch)
        now = Round(number, Seeds(seed)("train", number), Seeds(seed)("once"))
        row = {"round": float(number), "steps": float(batches.sum() * method.epochs)}
        row["plain loop"] = _timed(partial(_loop, method, model, cohort))
        for name, parts in _shards(method, cohort).items():
            row[name] = _timed(partial(_round, method, model, parts, now))
        rows.append(row)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table(title=f"{data}, {clients} clients: processor seconds", box=None)
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(f"{v:.0f}" if v % 1 == 0 else f"{v:.3f}" for v in row.values()))
    Console().print(table)


def _shards(method: Federeco, cohort: Cohort) -> Mapping[str, Sequence[Cohort]]:
    cut = Machine(workers=1).shards(cohort.counts, cohort.shape, method, False)
    return {
        "privfed": [part_of(cohort, at) for at in cut],
        "privfed, one shard": [cohort],
    }


def _timed(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _round(
    method: Federeco, model: State, shards: Sequence[Cohort], now: Round
) -> State:
    """One round of privfed, evaluation left out."""
    channel = Plain()
    ids = torch.cat([shard.clients for shard in shards])
    opened = channel.open(Opening(now.number, shards[0].shape, ids, now.stream))
    for cohort in shards:
        uploads = method.train(model, {}, cohort, now).uploads
        opened, _ = channel.send(opened, uploads)
    return method.apply(model, channel.close(opened).total)


def _loop(method: Federeco, model: State, cohort: Cohort) -> State:
    """The same round, one client after the other, each on a copy of all weights."""
    mean = {name: torch.zeros_like(value) for name, value in model.items()}
    samples = collect(cohort, Negatives(method.negatives), Seeds(0)("negatives"))
    for k, client in enumerate(cohort.clients.tolist()):
        real = samples.real[k]
        item = samples.item[k][samples.slot[k][real]].flatten()
        label = torch.zeros(int(real.sum()), 5)
        label[:, 0] = 1
        mine = _client(method, model, client, item, label.flatten())
        for name, value in mine.items():
            mean[name] += value.detach() / len(cohort.clients)
    return mean


def _client(
    method: Federeco, model: State, client: int, item: Tensor, label: Tensor
) -> State:
    mine = {n: v.requires_grad_() for n, v in deepcopy(dict(model)).items()}
    optimizer = torch.optim.AdamW(mine.values(), method.learning_rate)
    samples = TensorDataset(torch.full_like(item, client), item, label)
    loader = DataLoader(samples, method.batch, shuffle=True)
    for _ in range(method.epochs):
        for user, drawn, aim in loader:
            logit = _logits(method.neural, mine, user, drawn)
            loss = binary_cross_entropy_with_logits(logit, aim)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(mine.values(), method.clip or torch.inf)
            optimizer.step()
    return mine


def _tell(title: str, unit: str, curves: Sequence[Curve], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([one.__dict__ for one in curves], indent=2))
        return
    console = Console(width=120)
    console.print(f"{title}: HR@10 / NDCG@10", highlight=False)
    table = Table(box=None)
    table.add_column(unit, justify="right")
    for one in curves:
        table.add_column(one.name, justify="right", no_wrap=True)
    for number in curves[0].points:
        table.add_row(str(number), *(_words(one.points[number]) for one in curves))
    table.add_row("popularity", *(_words(one.popularity) for one in curves))
    table.add_row("alike", *(f"{one.alike:.3f}" for one in curves))
    table.add_row("seconds", *(f"{one.seconds:.2f}" for one in curves))
    console.print(table)


def _words(pair: Pair) -> str:
    return f"{pair[0]:.3f} / {pair[1]:.3f}"


if __name__ == "__main__":
    main()
