"""Shilling profiles against recommenders of ratings: what made-up data still does.

    python attacks/shilling.py --data ml-100k
    python attacks/shilling.py --target head --seeds 5

Devices of malicious clients train as told, on made-up ratings. A row for each profile,
a column for each server rule, for each class of targets a table: ER@10 of the target,
the median over seeds, each of which draws another target, and the range where it
varies; then the error of honest clients' ratings, and how many honest and malicious
clients send the target's row in a round. Finished runs are kept in --out, JSON lines,
and not made again.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import click
from at_hand import at_hand
from poisoned_cells import NOBODY, Cell, Found, Spread, made
from rich import box
from rich.console import Console
from rich.table import Table

DEFENSES: Mapping[str, str] = {
    "none": "plain",
    "median": "median",
    "trimmed_mean": "trimmed_mean:malicious=0.1",
    "multi_krum": "multi_krum:malicious=0.1",
    "norm_bound": "norm_bound",
}
PROFILES = (
    "random_attack",
    "average_attack",
    "bandwagon",
    "popular_attack",
    "segment",
)
FIGURES: Mapping[str, Callable[[Found], float | None]] = {
    "ER@10 of the target": lambda one: one.er,
    "RMSE": lambda one: one.rmse,
    "Honest clients that send the target's row in a round": lambda one: one.honest_rows,
    "Malicious clients that do": lambda one: one.malicious_rows,
}


@click.command(help=__doc__)
@click.option("--data", default=at_hand, help="Name or path.  [default: ml-100k]")
@click.option("--method", default="fedmf", show_default=True, help="Predicts ratings.")
@click.option("--rounds", default=30, show_default=True, help="Of everybody.")
@click.option("--malicious", default=0.05, show_default=True, help="Share of clients.")
@click.option("--target", "targets", default=("tail", "torso", "head"), multiple=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--jobs", default=os.cpu_count() or 1, show_default="cores")
@click.option(
    "--out",
    default=Path("runs/shilling.jsonl"),
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
)
@click.option("--json", "as_json", is_flag=True, help="Print all runs as JSON.")
def main(
    data: str,
    method: str,
    rounds: int,
    malicious: float,
    targets: Sequence[str],
    seeds: int,
    jobs: int,
    out: Path,
    as_json: bool,
) -> None:
    """Make the runs that are missing, and print the tables."""
    grid = {
        (target, name, attack): [
            Cell(data, method, defense, attack, malicious, target, rounds, 0, seed)
            for seed in range(seeds)
        ]
        for target in targets
        for attack in (NOBODY, *PROFILES)
        for name, defense in DEFENSES.items()
    }
    asked = [one[seed] for seed in range(seeds) for one in grid.values()]
    found = made(asked, out, jobs, _tell)
    if as_json:
        each = [{**asdict(cell), **asdict(found[cell])} for cell in asked]
        click.echo(json.dumps(each, indent=2))
        return
    told = {key: [found[cell] for cell in one] for key, one in grid.items()}
    for target in targets:
        for heading, figure in FIGURES.items():
            console = Console(width=150)
            console.print(f"\n{heading}, {target}\n", _table(told, target, figure))
    for reason in dict.fromkeys(one.reason for all_ in told.values() for one in all_):
        if reason:
            click.echo(f"-: {reason}")


def _tell(number: int, of: int, cell: Cell) -> None:
    words = f"{cell.defense} {cell.attack} {cell.target} seed {cell.seed}"
    click.echo(f"{number} of {of}: {words}", err=True)


def _table(
    told: Mapping[tuple[str, str, str], Sequence[Found]],
    target: str,
    figure: Callable[[Found], float | None],
) -> Table:
    table = Table(box=box.MARKDOWN)
    table.add_column("profile", no_wrap=True)
    for name in DEFENSES:
        table.add_column(name, justify="right", no_wrap=True)
    for attack in (NOBODY, *PROFILES):
        each = [[figure(f) for f in told[target, d, attack]] for d in DEFENSES]
        table.add_row(attack, *(str(Spread.of(one) or "-") for one in each))
    return table


if __name__ == "__main__":
    main()
