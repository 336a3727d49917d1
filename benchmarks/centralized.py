"""Centralized references on one data set: what a federated method may hope for.

    python benchmarks/centralized.py --data ml-100k --task ranking
    python benchmarks/centralized.py --data ml-100k --task rating
    python benchmarks/centralized.py --data ku --split warm --ranking full --at 50

Needs the extra ``baselines``. Split, candidates and ranks are those of ``privfed run``
with the same seeds. Settings were chosen on ML-100K by validation and are those of
``privfed.centralized``; VBPR, where items have features, is taken at the epoch that
validation chooses, the others after their last.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import click
from rich.console import Console
from rich.table import Table
from torch import Tensor

from privfed import references
from privfed.centralized import measure, rankers, raters
from privfed.centralized.vbpr import VBPR
from privfed.data.load import DataSettings, load
from privfed.data.world import Ragged, World
from privfed.evaluation.protocol import Protocol
from privfed.metrics.intervals import over_seeds

Figures = Mapping[str, float]
RATERS: Mapping[str, Callable[[World, Ragged, int], Tensor]] = {
    "user mean": lambda world, held, _: raters.user_mean(world, held),
    "item mean": lambda world, held, _: raters.item_mean(world, held),
    "PMF (surprise)": raters.pmf,
    "MF with biases (cornac)": raters.mf,
    "SVD++ (surprise)": raters.svdpp,
}


@dataclass(frozen=True)
class Row:
    """A reference's figures, one for each seed."""

    name: str
    values: Mapping[str, Sequence[float]]


@click.command(help=__doc__)
@click.option("--data", default="ml-100k", show_default=True, help="Name or path.")
@click.option(
    "--task",
    default="ranking",
    show_default=True,
    type=click.Choice(["ranking", "rating"]),
)
@click.option("--split", default="auto", show_default=True)
@click.option("--ranking", default="sampled", show_default=True)
@click.option("--at", default=10, show_default=True, help="Cut-off K.")
@click.option(
    "--pool",
    default="all_items",
    show_default=True,
    type=click.Choice(["all_items", "items_in_train"]),
    help="What VBPR draws negatives from.",
)
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--only", default="", help="Comma-separated parts of rows' names.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def main(
    data: str,
    task: str,
    split: str,
    ranking: str,
    at: int,
    pool: str,
    seeds: int,
    only: str,
    as_json: bool,
) -> None:
    """Fit every reference for every seed and print one table."""
    told: dict[str, list[Figures]] = {}
    for seed in range(seeds):
        settings = DataSettings(data, split=split, seed=seed)  # type: ignore[arg-type]
        world = load(settings, task).world  # type: ignore[arg-type]
        protocol = Protocol(ranking, at=(at,))  # type: ignore[arg-type]
        for name, fit in _fits(task, world, protocol, seed, pool).items():
            if only and not any(word in name for word in only.split(",")):
                continue
            click.echo(f"seed {seed}: {name}", err=True)
            told.setdefault(name, []).append(fit())
    rows = [Row(name, _by_metric(found)) for name, found in told.items()]
    if as_json:
        plain = {row.name: row.values for row in rows}
        click.echo(json.dumps(plain, indent=2))
        return
    Console(width=120).print(_table(f"{data}, {task}", rows))


def _fits(
    task: str, world: World, protocol: Protocol, seed: int, pool: str
) -> Mapping[str, Callable[[], Figures]]:
    """Every reference that this world allows, ready to be fitted and measured."""
    if task == "rating":
        test = world.test

        def errors(fit: Callable[[World, Ragged, int], Tensor]) -> Figures:
            return measure.rated(fit(world, test, seed), test)

        return {name: partial(errors, fit) for name, fit in RATERS.items()}

    def judged(held: Ragged, scores: Tensor) -> Figures:
        return measure.ranked(world, scores, held, protocol, seed)

    def best(scores: Tensor) -> float:
        return judged(world.validation, scores)[f"ndcg@{protocol.at[0]}"]

    everyone = world.shape.clients
    fits: dict[str, Callable[[], Tensor]] = {
        "popularity": lambda: rankers.popularity(world),
        "unseen first": lambda: references.unseen_first(world).expand(everyone, -1),
        "BPR (cornac)": lambda: rankers.bpr(world, seed),
        "ALS (implicit)": lambda: rankers.als(world, seed),
    }
    if world.features:
        vbpr = VBPR(pool=pool)  # type: ignore[arg-type]
        fits["VBPR"] = lambda: vbpr.scores(world, seed, best)
    return {
        n: partial(lambda fit: judged(world.test, fit()), f) for n, f in fits.items()
    }


def _by_metric(found: Sequence[Figures]) -> Mapping[str, Sequence[float]]:
    return {name: [one[name] for one in found] for name in found[0]}


def _table(title: str, rows: Sequence[Row]) -> Table:
    table = Table(title=title, box=None, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for name in rows[0].values:
        table.add_column(name, justify="right", no_wrap=True)
        table.add_column("+/-", justify="right", no_wrap=True)
    for row in rows:
        cells = [cell for values in row.values.values() for cell in _cell(values)]
        table.add_row(row.name, *cells)
    return table


def _cell(values: Sequence[float]) -> tuple[str, str]:
    """A mean, and half of its interval over seeds."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:.4f}", ""
    return f"{mean:.4f}", f"{over_seeds(values)[1] - mean:.4f}"


if __name__ == "__main__":
    main()
