"""What reaching an accuracy costs: FedMeta's algorithms beside FedAvg.

Two tasks: ``usage``, the generated log of services, with a network of one hidden
layer; and ``letters``, the next letter of what a role of Shakespeare's says, with the
paper's LSTM of two layers made small enough for one processor core. The rates are the
paper's for Shakespeare: 0.001 for FedAvg, 0.1 inside and 0.01 outside for FedMeta.

    python benchmarks/fedmeta_curves.py --task usage
    python benchmarks/fedmeta_curves.py --task letters --data shakespeare

Bytes are those sent up and down by all clients until the round whose accuracy on test
clients reaches the target first. Operations are estimated: if scoring a record takes F
additions and multiplications, a gradient takes 3 F a record, and differentiating
through a gradient 6 F more. An episode of FOMAML takes 3 F (support + query), one of
MAML or Meta-SGD 6 F support besides; an epoch of FedAvg takes 3 F a record.

Chen et al., Federated Meta-Learning with Fast Convergence and Efficient Communication,
2018, Figure 3.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import get_args, get_type_hints

import click
import torch
from rich.console import Console
from rich.table import Table

from privfed.channels.plain import Plain
from privfed.data.load import DataSettings, interactions
from privfed.data.splits import by_clients
from privfed.data.usage import Population, usage
from privfed.data.world import World
from privfed.evaluation.protocol import Protocol
from privfed.machine import Machine
from privfed.methods.fedmeta import FedMeta
from privfed.methods.meta.records import Taking
from privfed.rounds import Setup, run
from privfed.sampling import Sampling

ALGORITHMS = get_args(get_type_hints(FedMeta)["algorithm"])
PUBLISHED = {  # Shakespeare to 38 %: 10^9 bytes, 10^13 operations
    "fedavg": (21.9, 2.03),
    "fedavg_meta": (23.83, 2.20),
    "fomaml": (8.44, 5.61),
    "maml": (10.28, 11.31),
    "meta_sgd": (10.45, 11.48),
}
_RATES = {"inner_rate": 0.1, "outer_rate": 0.01, "local_rate": 0.001}


@dataclass(frozen=True)
class Curve:
    """What one algorithm reached, and what each of its rounds cost."""

    algorithm: str
    accuracy: Mapping[int, float]  # by rounds done
    bytes_round: float
    flops_round: float

    def until(self, target: float) -> int | None:
        """Rounds until an accuracy is reached."""
        done = (n for n, value in self.accuracy.items() if value >= target)
        return next(done, None)


def method_of(algorithm: str, task: str, hidden: int) -> FedMeta:
    """An algorithm as both tasks train it."""
    if task == "usage":
        sizes = {"model": "network", "adapt_steps": 10, "batch": 50}
    else:
        sizes = {"model": "lstm", "adapt_steps": 5, "batch": 20, "records": 50}
        sizes |= {"share": 1.0, "support": 0.5}
    return FedMeta(algorithm=algorithm, hidden=hidden, **sizes, **_RATES)  # type: ignore[arg-type]


def world_of(task: str, data: str, length: int, every: int, seed: int) -> World:
    if task == "usage":
        return by_clients(usage(seed, Population(600, 100, 1000)), seed)
    how = f"plays:predict=letters,length={length},every={every}"
    records = interactions(DataSettings(data, format=how))
    return by_clients(records, seed, support=0.5, query=0.5)


def flops_of(method: FedMeta, world: World, clients: int) -> float:
    """Operations of a round, as estimated above."""
    one = method.classifier.flops(world.shape)
    counts = world.train.counts[world.eligible]
    if method.averages:
        return clients * 3.0 * one * method.epochs * float(counts.double().mean())
    taking = Taking(method.records, method.share, method.support)
    taken = taking.taken(counts)
    support = float(taking.supports(taken).double().mean())
    twice = 0 if method.algorithm == "fomaml" else 6 * support
    return clients * one * (3 * float(taken.double().mean()) + twice)


def curve(method: FedMeta, world: World, clients: int, rounds: int) -> Curve:
    setup = Setup(
        world,
        method,
        Plain(),
        sampling=Sampling("uniform", clients),
        protocol=Protocol(every=10),
        rounds=rounds,
    )
    state = run(setup, Machine(workers=1, memory=8 * 2**30)).state
    accuracy = {
        int(row["round"]): row["utility.accuracy@1"]
        for row in state.log
        if "utility.accuracy@1" in row
    }
    sent = (state.costs.bytes_up + state.costs.bytes_down) / rounds
    return Curve(method.algorithm, accuracy, sent, flops_of(method, world, clients))


@click.command()
@click.option("--task", type=click.Choice(["usage", "letters"]), default="usage")
@click.option("--data", default="shakespeare", help="letters: the plays.")
@click.option("--rounds", default=300)
@click.option("--clients", default=20, help="Clients of a round.")
@click.option("--hidden", default=64, help="Units of a layer (paper's LSTM: 256).")
@click.option("--length", default=20, help="letters: of a record (paper: 80).")
@click.option("--every", default=100, help="letters: a record each so many (LEAF: 1).")
@click.option("--target", default=None, type=float, help="Accuracy to reach, a share.")
@click.option("--only", multiple=True, type=click.Choice(ALGORITHMS))
@click.option("--seed", default=0)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def main(
    task: str,
    data: str,
    rounds: int,
    clients: int,
    hidden: int,
    length: int,
    every: int,
    target: float | None,
    only: tuple[str, ...],
    seed: int,
    as_json: bool,
) -> None:
    """Train every algorithm and show what it cost to reach the target."""
    torch.set_num_threads(1)
    world = world_of(task, data, length, every, seed)
    curves = []
    for algorithm in only or ALGORITHMS:
        method = method_of(algorithm, task, hidden)
        curves.append(curve(method, world, clients, rounds))
        click.echo(f"{algorithm}: {max(curves[-1].accuracy.values()):.4f}", err=True)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in curves], indent=2))
        return
    aim = target or min(max(one.accuracy.values()) for one in curves)
    Console(width=110).print(_table(task, world, curves, aim))


def _table(task: str, world: World, curves: list[Curve], target: float) -> Table:
    title = (
        f"{task}: {len(world.eligible):,} clients train, "
        f"{int((world.test.counts > 0).sum()):,} test; to {target:.1%}"
    )
    table = Table(title=title, box=None, title_justify="left")
    for name in (
        "",
        "last",
        "best",
        "rounds",
        "MB",
        "G operations",
        "paper: GB",
        "paper: 10^13",
    ):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for one in curves:
        done = one.until(target)
        cost = ("not reached", "", "")
        if done:
            sent, work = done * one.bytes_round / 1e6, done * one.flops_round / 1e9
            cost = (str(done), f"{sent:.1f}", f"{work:.1f}")
        last, best = [*one.accuracy.values()][-1], max(one.accuracy.values())
        paper = PUBLISHED[one.algorithm] if task == "letters" else ("", "")
        cells = (f"{last:.1%}", f"{best:.1%}", *cost, *map(str, paper))
        table.add_row(one.algorithm, *cells)
    return table


if __name__ == "__main__":
    main()
