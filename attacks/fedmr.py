"""Does FedMR keep interactions private? Five attacks on all five of its backbones.

FedMR's paper says that devices which upload item embeddings and fusion gradients alone
reveal no raw data. Each attack sees the uploads and nothing of a device's data:
``support`` and ``recurrence`` the item ids, ``sign_pc`` the item rows of one round,
``sign_pc_rounds`` of all, ``feature_span`` the fusion module's gradients and no item
row. They meet no defense, the paper's noise (variance 0.1, which no theorem covers) and
differential privacy.

    python attacks/fedmr.py

The data are KU, the paper's, in a folder of that name in PRIVFED_DATA; give --data for
others. A figure means something where it beats popularity alone, which needs no upload.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from privfed.cli.progress import Line
from privfed.config import RunSettings, run_settings
from privfed.experiment import execute
from privfed.result import Result

BACKBONES = ("fedavg", "fcf", "fedncf", "pfedrec", "fedrap")
DEFENSES = ("none", "gaussian:variance=0.1", "dp:epsilon=8")
ATTACKS = ("support", "recurrence", "sign_pc", "sign_pc_rounds", "feature_span")
METRICS = ("precision", "recall", "f1", "auc")


@dataclass(frozen=True)
class Row:
    """What one attack recovered of one backbone under one defense."""

    defense: str
    backbone: str
    attack: str
    figures: dict[str, float]
    prior: dict[str, float]
    run: str


@click.command(help=__doc__)
@click.option("--data", default="ku", show_default=True, help="Name or path.")
@click.option("--features", multiple=True, default=("auto",), show_default=True)
@click.option("--backbone", "backbones", multiple=True, default=BACKBONES)
@click.option("--defense", "defenses", multiple=True, default=DEFENSES)
@click.option("--rounds", default=3, show_default=True)
@click.option("--seeds", default=1, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option(
    "--out",
    default=Path("runs/fedmr"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Run folders.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def main(
    data: str,
    features: Sequence[str],
    backbones: Sequence[str],
    defenses: Sequence[str],
    rounds: int,
    seeds: int,
    workers: int,
    out: Path,
    as_json: bool,
) -> None:
    """Attack every backbone under every defense and print one table."""
    common = {
        "data": {"data": data, "features": list(features)},
        "rounds": rounds,
        "seeds": seeds,
        "protocol": {"every": rounds},
        "machine": {"workers": workers},
        "attack": list(ATTACKS),
        "out": str(out),
    }
    rows: list[Row] = []
    for defense in defenses:
        for backbone in backbones:
            asked = {"method": f"fedmr:backbone={backbone}", "defense": [defense]}
            rows += measured(run_settings(common, asked), defense, backbone)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    Console().print(shown(rows), highlight=False)


def measured(settings: RunSettings, defense: str, backbone: str) -> list[Row]:
    """One run, its attacks one a row."""
    click.echo(f"{defense}, {backbone}", err=True)
    with Line(settings.seed, settings.seeds) as progress:
        result = execute(settings, True, progress)
    return [row(result, defense, backbone, attack) for attack in ATTACKS]


def row(result: Result, defense: str, backbone: str, attack: str) -> Row:
    """What an attack recovered, and popularity alone."""
    key = f"leakage.{attack}."
    figures = {name: result.figures[key + name].value for name in METRICS}
    prior = {name: result.references[key + name]["prior"] for name in METRICS}
    return Row(defense, backbone, attack, figures, prior, result.id)


def shown(rows: Sequence[Row]) -> Table:
    """A block for each defense and backbone."""
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in ("precision", "recall", "F1", "AUC"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row("popularity alone", *cells(rows[0].prior))
    for one in rows:
        if one.attack == ATTACKS[0]:
            table.add_row(f"{one.defense}, {one.backbone}")
        table.add_row(f"  {one.attack}", *cells(one.figures))
    return table


def cells(values: Mapping[str, float]) -> list[str]:
    """Figures to three digits."""
    return [f"{values[name]:.3f}" for name in METRICS]


if __name__ == "__main__":
    main()
