"""Who took part, and which uploads are one client's?

``user_membership`` knows the interactions of candidates and the model of every round,
as any client of the federation has it, and tells who took part in training.
``linkage`` sees two rounds of uploads that bear no name and tells which are one
client's. Both meet no defense and differential privacy.

    python attacks/users.py

The data are MovieLens-100K where it is at hand (``privfed data get ml-100k``), else
the generated demo world. A run of membership takes 10 rounds of 20 clients, so that
most of the population stays outside; one of linkage takes 2 rounds of everybody.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from at_hand import at_hand
from rich.console import Console
from rich.table import Table

from privfed.cli.progress import Line
from privfed.config import run_settings
from privfed.experiment import execute
from privfed.result import Figure

METHODS = ("pfedrec", "fedncf", "bpr", "fedmf")
DEFENSES = ("none", "dp:epsilon=8", "user_dp:epsilon=8")
LINKED = ("none", "gaussian:variance=1e-6", "dp:epsilon=8")  # what uploads carry
_HEADS = {
    "auc": "AUC",
    "tpr@fpr_1e-2": "TPR@1e-2",
    "tpr@fpr_1e-3": "TPR@1e-3",
    "reciprocal_rank": "1/rank",
}
FEW = {"kind": "uniform", "clients_per_round": 20}


@dataclass(frozen=True)
class Row:
    """What one attack reached on one method under one defense."""

    attack: str
    method: str
    defense: str
    figures: dict[str, Figure]
    prior: dict[str, float]
    refused: str
    run: str


@click.command(help=__doc__)
@click.option("--data", help="Name or path.  [default: ml-100k, else demo]")
@click.option("--method", "methods", multiple=True, default=METHODS)
@click.option("--seeds", default=1, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option(
    "--out",
    default=Path("runs/users"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Run folders.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def main(
    data: str | None,
    methods: Sequence[str],
    seeds: int,
    workers: int,
    out: Path,
    as_json: bool,
) -> None:
    """Attack every method under every defense and print two tables."""
    common = {
        "data": {"data": data or at_hand(), "features": []},
        "seeds": seeds,
        "machine": {"workers": workers},
        "out": str(out),
        "protocol": {"every": 1_000_000},
    }
    few = {"rounds": 10, "sampling": FEW, "attack": ["user_membership"]}
    two = {"rounds": 2, "attack": ["linkage"]}
    rows = [
        _row({**common, **how}, method, defense)
        for how, defenses in ((few, DEFENSES), (two, LINKED))
        for method in methods
        for defense in defenses
    ]
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    console = Console()
    member = _table("who took part", rows, ("auc", "tpr@fpr_1e-2", "tpr@fpr_1e-3"))
    linked = _table("whose upload", rows, ("linked", "reciprocal_rank", "auc"))
    console.print(member, highlight=False)
    console.print(linked, highlight=False)


def _row(common: dict[str, Any], method: str, defense: str) -> Row:
    given = {**common, "method": method, "defense": [defense]}
    settings = run_settings(given, {})
    [attack] = common["attack"]
    click.echo(f"{attack}: {method}, {defense}", err=True)
    with Line(settings.seed, settings.seeds) as progress:
        result = execute(settings, True, progress)
    key = f"leakage.{attack}."
    told = {
        name.removeprefix(key): figure
        for name, figure in result.figures.items()
        if name.startswith(key)
    }
    prior = {
        name: result.references[key + name]["prior"]
        for name in told
        if key + name in result.references
    }
    refused = result.not_applicable.get(attack, "")
    return Row(attack, method, defense, told, prior, refused, result.id)


def _table(title: str, rows: Sequence[Row], names: Sequence[str]) -> Table:
    """The rows that have all of the figures, beside the prior alone."""
    lead = names[0]
    table = Table(box=None, pad_edge=False, title=title)
    table.add_column("method", no_wrap=True)
    table.add_column("defense", no_wrap=True)
    heads = [_HEADS.get(name, name) for name in names]
    for name in (heads[0], "95 % interval", *heads[1:], "prior"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        if not set(names) <= set(row.figures):
            continue
        values = [f"{row.figures[name].value:.3f}" for name in names]
        interval = _interval(row.figures[lead])
        prior = f"{row.prior[lead]:.3f}"
        cells = (values[0], interval, *values[1:], prior)
        table.add_row(row.method, row.defense, *cells)
    return table


def _interval(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return ""
    return f"{figure.low:.3f} to {figure.high:.3f}"


if __name__ == "__main__":
    main()
