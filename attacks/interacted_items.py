"""Which items did each client interact with? Read it off the uploads of PFedRec.

Two attacks, each given every client's first upload and nothing of its data:
``support`` claims the items whose rows were sent; ``sign_pc`` tells interactions
from sampled negatives by the sign of a row's first principal component. They meet
no defense, noise without a guarantee, and differential privacy whose whole epsilon
is spent in this one round, which is the least noise that the guarantee allows. With
--rounds there are more uploads, and two attacks that read all of them:
``sign_pc_rounds``, and ``recurrence``, which sees item ids alone.

    python attacks/interacted_items.py
    python attacks/interacted_items.py --rounds 5

The data are MovieLens-100K where it is at hand (``privfed data get ml-100k``), else
the generated demo world.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from at_hand import at_hand
from rich.console import Console
from rich.table import Table

from privfed.cli.progress import Line
from privfed.config import RunSettings, run_settings
from privfed.data.load import load
from privfed.experiment import execute
from privfed.result import Figure, Result

DEFENSES = (
    "none",
    "gaussian:rows=touched",
    "gaussian:variance=1e-6",
    "gaussian:variance=0.1",
    "dp:epsilon=8",
    "dp:epsilon=1",
)
ATTACKS = ("support", "sign_pc")
OF_ROUNDS = ("sign_pc_rounds", "recurrence")
METRICS = ("precision", "recall", "f1", "auc")


@dataclass(frozen=True)
class Row:
    """What one attack recovered under one defense, beside popularity alone."""

    defense: str
    attack: str
    figures: dict[str, Figure]
    prior: dict[str, float]
    run: str


@click.command(help=__doc__)
@click.option("--data", help="Name or path.  [default: ml-100k, else demo]")
@click.option("--rounds", default=1, show_default=True)
@click.option("--seeds", default=1, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option(
    "--out",
    default=Path("runs/interacted-items"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Run folders.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def main(
    data: str | None, rounds: int, seeds: int, workers: int, out: Path, as_json: bool
) -> None:
    """Attack under every defense and print one table."""
    attacks = ATTACKS + OF_ROUNDS if rounds > 1 else ATTACKS
    common = {
        "method": "pfedrec",
        "data": {"data": data or at_hand(), "features": []},
        "rounds": rounds,
        "seeds": seeds,
        "machine": {"workers": workers},
        "attack": list(attacks),
        "out": str(out),
    }
    settings = [run_settings(common, {"defense": [one]}) for one in DEFENSES]
    rows = [
        row
        for one, defense in zip(settings, DEFENSES, strict=True)
        for row in _measure(one, defense, attacks)
    ]
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    console = Console()
    console.print(_heading(settings[0]), highlight=False, soft_wrap=True)
    console.print(_table(rows))


def _measure(settings: RunSettings, defense: str, attacks: Sequence[str]) -> list[Row]:
    click.echo(defense, err=True)
    with Line(settings.seed, settings.seeds) as progress:
        result = execute(settings, True, progress)
    return [_row(result, defense, attack) for attack in attacks]


def _row(result: Result, defense: str, attack: str) -> Row:
    key = f"leakage.{attack}."
    figures = {name: result.figures[key + name] for name in METRICS}
    prior = {name: result.references[key + name]["prior"] for name in METRICS}
    return Row(defense, attack, figures, prior, result.id)


def _heading(settings: RunSettings) -> str:
    world = load(settings.data).world
    train = world.train.counts
    share = float(train[train > 0].double().mean()) / world.shape.items
    return (
        f"Uploads of PFedRec a client: {settings.rounds}. "
        f"{world.name}: {world.shape.clients:,} clients, "
        f"{world.shape.items:,} items.\nA client interacted with {share:.3f} of the "
        "items: the precision of claiming them all.\n"
    )


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in ("precision", "recall", "F1", "95 % interval", "AUC"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row("popularity alone", *_cells(rows[0].prior))
    for row in rows:
        if row.attack == ATTACKS[0]:
            table.add_row(row.defense)
        values = {name: figure.value for name, figure in row.figures.items()}
        cells = _cells(values, _interval(row.figures["f1"]))
        table.add_row(f"  {row.attack}", *cells)
    return table


def _cells(values: Mapping[str, float], interval: str = "") -> list[str]:
    told = [f"{values[name]:.3f}" for name in METRICS]
    return [*told[:-1], interval, told[-1]]


def _interval(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return ""
    return f"{figure.low:.3f} to {figure.high:.3f}"


if __name__ == "__main__":
    main()
