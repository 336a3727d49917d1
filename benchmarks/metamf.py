"""MetaMF: accuracy, seconds of an epoch, and memory.

    python benchmarks/metamf.py accuracy --data ml-100k --data ml-1m
    python benchmarks/metamf.py epoch
    python benchmarks/metamf.py memory --data ciao --scale paper

``accuracy`` trains MetaMF and its two variants at the smallest scale of the paper's
Table 4 on shuffled ratings, split 80/10/10 by user (Ciao: as the authors did), and
prints test errors at the round that validation chose beside the mean of each user and
of each item. ``epoch`` times one pass over ML-100K under the released code's protocol,
64 ratings a round, without evaluation: processor seconds of the whole process.
``memory`` prints the peak resident size of a process that trains on one source, and
what its parameters and Adam's moments alone take.

Lin et al., Meta Matrix Factorization for Federated Rating Predictions, SIGIR 2020.
"""

import json
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from privfed.channels.plain import Plain
from privfed.data.load import DataSettings, Split, load
from privfed.data.world import World
from privfed.evaluation.protocol import Protocol
from privfed.machine import Machine
from privfed.methods.metamf.method import MetaMF
from privfed.methods.metamf.theta import Variant, theta
from privfed.rounds import Outcome, Progress, Setup, run
from privfed.sampling import Sampling

SMALL = MetaMF(width=8, layer=2, low=4, collaborative=32, hidden=128)
SCALES = {"small": SMALL, "paper": MetaMF()}
VARIANTS: tuple[Variant, ...] = ("full", "si", "sm")
PUBLISHED = {  # MAE and MSE at the paper's scale, its Tables 2 and 3
    "ml-1m": {"full": (0.687, 0.760), "si": (0.696, 0.784), "sm": (0.697, 0.788)},
    "ciao": {"full": (0.774, 1.043), "si": (0.732, 0.925), "sm": (0.789, 1.061)},
}
# Processor seconds of an ML-100K epoch with the authors' code (commit bbfdf0b), one
# thread, evaluation left out, on shared machines: batches on an AMD EPYC (Zen 5,
# 2.6 GHz), taken up to an epoch; one epoch on an Intel Xeon (Cascade Lake, 2.5 GHz).
OFFICIAL = {("small", "EPYC"): 17.7, ("paper", "EPYC"): 106.0, ("paper", "Xeon"): 220.0}
Row = dict[str, Any]


@click.group(help=__doc__)
def main() -> None: ...


as_json = click.option("--json", "as_json", is_flag=True, help="Print rows as JSON.")


@main.command()
@click.option("--data", multiple=True, default=("ml-100k",), show_default=True)
@click.option("--variant", multiple=True, type=click.Choice(VARIANTS), default=VARIANTS)
@click.option("--epochs", default=10, show_default=True)
@click.option("--ratings", default=1024, show_default=True, help="Of a round.")
@click.option("--learning-rate", default=0.01, show_default=True)
@as_json
def accuracy(
    data: Sequence[str],
    variant: Sequence[Variant],
    epochs: int,
    ratings: int,
    learning_rate: float,
    as_json: bool,
) -> None:
    """Train at the smallest scale and measure."""
    rows = []
    for source in data:
        world = _world(source)
        each = -(-len(world.train.item) // ratings)  # rounds of an epoch
        for one in variant:
            # Two shared hidden units die together; two of each client's own do not.
            layer = 4 if one == "sm" else SMALL.layer
            method = replace(
                SMALL, variant=one, layer=layer, learning_rate=learning_rate
            )
            setup = _setup(world, method, epochs * each, ratings, each)
            began = time.process_time()
            outcome = run(setup, Machine(workers=1), None, _told(source, one))
            seconds = time.process_time() - began
            rows.append(_errors(source, one, outcome, seconds / epochs, each))
    _show(rows, "test MAE / MSE, smallest scale", as_json)


def _world(source: str) -> World:
    """80/10/10 of each user's ratings; MetaMF's own split where that is the data."""
    split: Split = "given" if source == "ciao" else "ratio"
    return load(DataSettings(data=source, split=split, features=()), "rating").world


def _setup(
    world: World, method: MetaMF, rounds: int, ratings: int, every: int
) -> Setup:
    sampling = Sampling("interactions", interactions_per_round=ratings)
    protocol = Protocol(every=every)
    return Setup(
        world, method, Plain(), sampling=sampling, protocol=protocol, rounds=rounds
    )


def _told(*words: str) -> Progress:
    def told(round: int, rounds: int, row: Mapping[str, float]) -> None:
        if "validation.mae" in row:
            found = f"{row['validation.mae']:.4f} / {row['utility.mae']:.4f}"
            click.echo(f"{' '.join(words)} {round}/{rounds}: {found}", err=True)

    return told


def _errors(
    source: str, variant: Variant, outcome: Outcome, seconds: float, each: int
) -> Row:
    scores = outcome.task.scores(outcome.state.best_test)
    row: Row = {"data": source, "variant": variant}
    row |= {name: round(scores[name].mean(), 4) for name in ("mae", "mse")}
    row["epoch chosen"] = outcome.state.best.round / each
    row["seconds of an epoch"] = round(seconds, 1)
    mae, mse = PUBLISHED.get(source, {}).get(variant, ("", ""))
    row |= {"paper's mae": mae, "paper's mse": mse}
    for name, marks in outcome.task.references().items():
        error = marks.value
        row[name] = f"{error.abs().mean():.3f} / {error.square().mean():.3f}"
    return row


@main.command()
@click.option("--data", default="ml-100k", show_default=True)
@click.option("--scale", multiple=True, type=click.Choice([*SCALES]), default=[*SCALES])
@click.option("--repeats", default=1, show_default=True, help="The best one counts.")
@click.option("--ratings", default=64, show_default=True, help="Of a round.")
@as_json
def epoch(
    data: str, scale: Sequence[str], repeats: int, ratings: int, as_json: bool
) -> None:
    """Time one pass over the training ratings."""
    world, rows = _world(data), list[Row]()
    rounds = -(-len(world.train.item) // ratings)
    for one in scale:
        method = SCALES[one]
        found = [_timed(world, method, rounds, ratings) for _ in range(repeats)]
        seconds, errors = min(found, key=lambda pair: pair[0])
        rows.append({"scale": one, "rounds": rounds, "seconds": round(seconds, 2)})
        rows[-1] |= errors
        rows[-1] |= {
            f"authors' code, {where}": known
            for (size, where), known in OFFICIAL.items()
            if size == one
        }
    _show(rows, f"processor seconds of an epoch, {data}", as_json)


def _timed(
    world: World, method: MetaMF, rounds: int, ratings: int
) -> tuple[float, Row]:
    """Seconds of as many rounds, the first one left out, and errors on test pairs."""
    at: list[float] = []
    setup = _setup(world, method, rounds + 2, ratings, 10**9)  # the last one measures
    outcome = run(
        setup, Machine(workers=1), None, lambda *_: at.append(time.process_time())
    )
    last = outcome.state.log[-1]
    errors = {name: round(last[f"utility.{name}"], 3) for name in ("mae", "mse")}
    return at[rounds] - at[0], errors


@main.command()
@click.option("--data", default="ciao", show_default=True)
@click.option("--scale", type=click.Choice([*SCALES]), default="small")
@click.option("--rounds", default=10, show_default=True)
@click.option("--ratings", default=64, show_default=True, help="Of a round.")
@as_json
def memory(data: str, scale: str, rounds: int, ratings: int, as_json: bool) -> None:
    """Peak memory of training, and seconds of a round."""
    world, method = _world(data), SCALES[scale]
    before = _peak()
    at: list[float] = []
    setup = _setup(world, method, rounds + 1, ratings, 10**9)
    run(setup, Machine(workers=1), None, lambda *_: at.append(time.process_time()))
    numbers = sum(part.numbers for part in theta(method.sizes, world.shape).values())
    row = {
        "data": data,
        "scale": scale,
        "parameters": numbers,
        "GiB of parameters and moments": round(3 * 4 * numbers / 2**30, 2),
        "GiB peak": round(_peak(), 2),
        "GiB before": round(before, 2),
        "seconds of a round": round((at[-2] - at[0]) / (rounds - 1), 3),
    }
    _show([row], "memory", as_json)


def _peak() -> float:
    """Peak resident size of this process in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _show(rows: Sequence[Row], title: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table(title=title, box=None)
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(str(row.get(name, "")) for name in names))
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
