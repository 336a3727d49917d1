"""What noise costs in utility and what it leaves to the attacks.

One method, trained under Gaussian noise (of the variances in FedMR's own noise table,
and of a smaller one) and under differential privacy from epsilon 512 down to 1. Every
row is a whole run; the runs share every other random draw, so rows can be compared. A
run that diverges is a result as well.

    python defenses/noise_study.py
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from privfed.cli.progress import Line
from privfed.config import RunSettings, run_settings
from privfed.errors import PrivfedError
from privfed.experiment import execute
from privfed.report.words import number
from privfed.result import Figure

# The item table's learning rate multiplies the noise on it: that of the default
# backbone, times the number of items, lets every FedMR run with much noise diverge.
METHOD = "fedmr:backbone=fedavg,item_rate=20"
DEFENSES = (
    "none",
    "gaussian:variance=0.0001",
    "gaussian:variance=0.01",
    "gaussian:variance=0.1",
    "gaussian:variance=1",
    "dp:epsilon=512",
    "dp:epsilon=64",
    "dp:epsilon=8",
    "dp:epsilon=1",
)
COLUMNS: Mapping[str, str] = {
    "utility.hr@10": "HR@10",
    "leakage.support.precision": "support\nprec.",
    "leakage.sign_pc.f1": "sign_pc\nF1",
    "leakage.sign_pc.auc": "sign_pc\nAUC",
    "cost.bytes_up": "upload",
    "cost.client_seconds": "device\ntime",
}


@dataclass(frozen=True)
class Row:
    """What one run measured; ``epsilon`` is None where nothing is guaranteed."""

    defense: str
    epsilon: float | None = None
    figures: Mapping[str, Figure] = field(default_factory=dict)
    references: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""  # why there are no figures


@click.command(help=__doc__)
@click.option("--method", default=METHOD, show_default=True, help="Any spec.")
@click.option("--data", default="demo", show_default=True, help="Name or path.")
@click.option("--rounds", default=30, show_default=True)
@click.option("--seeds", default=1, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option(
    "--out",
    default=Path("runs/noise-study"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Run folders; a second call goes on from them.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def main(
    method: str,
    data: str,
    rounds: int,
    seeds: int,
    workers: int,
    out: Path,
    as_json: bool,
) -> None:
    """Run every defense and print one table."""
    common = {
        "method": method,
        "data": {"data": data},
        "rounds": rounds,
        "seeds": seeds,
        "machine": {"workers": workers},
        "out": str(out),
    }
    settings = [run_settings(common, {"defense": [one]}) for one in DEFENSES]
    rows = [
        _measure(one, defense) for one, defense in zip(settings, DEFENSES, strict=True)
    ]
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    _show(rows, f"{settings[0].method.spec} on {data}, {rounds} rounds\n")


def _measure(settings: RunSettings, defense: str) -> Row:
    click.echo(defense, err=True)
    try:
        with Line(settings.seed, settings.seeds) as progress:
            result = execute(settings, True, progress)
    except PrivfedError as error:
        if error.exit_code != PrivfedError.exit_code:  # unusable settings or data
            raise
        return Row(defense, failure=str(error))
    floors = {key: next(iter(told.values())) for key, told in result.references.items()}
    spent = [promise.epsilon for promise in result.privacy.values()]
    return Row(defense, spent[0] if spent else None, result.figures, floors)


def _show(rows: Sequence[Row], heading: str) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("defense", no_wrap=True)
    for name in COLUMNS.values():
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        known = {key: figure.value for key, figure in row.figures.items()}
        table.add_row(row.defense, *(_cells(known) if known else ["diverged"]))
    floors = next(row.references for row in rows if row.references)
    table.add_row("popularity alone", *_cells(floors))
    console = Console()
    console.print(heading, highlight=False, soft_wrap=True)
    console.print(table)
    for row in rows:
        if row.failure:
            console.print(f"\n{row.defense}: {row.failure}", highlight=False)


def _cells(known: Mapping[str, float]) -> list[str]:
    return [_value(key, known[key]) if key in known else "" for key in COLUMNS]


def _value(key: str, value: float) -> str:
    return number(key, value) if key.startswith("cost") else f"{value:.3f}"


if __name__ == "__main__":
    main()
