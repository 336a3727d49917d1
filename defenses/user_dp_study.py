"""What a guarantee for a user's whole history costs in utility, by who must be trusted.

One method under ``user_dp``, whose sum is noised once by whoever holds it, with all
clients in every round and with Poisson cohorts, and under ``ldp``, where every device
noises its own upload; for epsilon from 1 up. Every figure is of a whole run, with the
same draws but the noise. The clip is chosen without a look at the norms: with
``user_dp`` it starts at ``--clip`` and follows a low quantile of them, which takes its
part of epsilon; with ``ldp``, which has no such count, it stays there.

    python defenses/user_dp_study.py
    python defenses/user_dp_study.py --data ml-100k
    python defenses/user_dp_study.py --method fedmr --clip 1 --quantile none
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from privfed.cli.progress import Line
from privfed.config import RunSettings, run_settings
from privfed.errors import PrivfedError
from privfed.experiment import execute
from privfed.result import Figure

METHOD = "fcf_original:confidence=3"
EPSILONS = (1.0, 2.0, 4.0, 8.0, 32.0)
LOCAL = (*EPSILONS, 1_000.0, 10_000.0)  # so far up to see anything at all
KEY = "utility.hr@10"


@dataclass(frozen=True)
class Row:
    """What one run measured; ``told`` is the guarantee as the run states it."""

    defense: str
    cohorts: str
    epsilon: float | None = None  # asked for
    told: str = ""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    references: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""  # why there are no figures


@click.command(help=__doc__)
@click.option("--method", default=METHOD, show_default=True, help="Any spec.")
@click.option("--data", default="demo", show_default=True, help="Name or path.")
@click.option("--rounds", default=30, show_default=True)
@click.option("--clients-per-round", default=200, show_default=True, help="Poisson.")
@click.option("--clip", default=5.0, show_default=True)
@click.option("--quantile", default="0.2", show_default=True, help="Or none.")
@click.option("--seeds", default=1, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option(
    "--out",
    default=Path("runs/user-dp-study"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Run folders; a second call goes on from them.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def main(
    method: str,
    data: str,
    rounds: int,
    clients_per_round: int,
    clip: float,
    quantile: str,
    seeds: int,
    workers: int,
    out: Path,
    as_json: bool,
) -> None:
    """Run every epsilon under every trust and print one table."""
    common = {
        "method": method,
        "attack": "none",
        "data": {"data": data},
        "rounds": rounds,
        "seeds": seeds,
        "machine": {"workers": workers},
        "out": str(out),
    }
    poisson = {"kind": "poisson", "clients_per_round": clients_per_round}
    central, local = f"user_dp:clip={clip},quantile={quantile}", f"ldp:clip={clip}"
    runs = [
        _measure(common, "none", None, {}),
        *(_measure(common, central, e, {}) for e in EPSILONS),
        *(_measure(common, central, e, poisson) for e in EPSILONS),
        *(_measure(common, local, e, {}) for e in LOCAL),
    ]
    if as_json:
        click.echo(json.dumps([asdict(row) for row in runs], indent=2))
        return
    _show(runs, f"{method} on {data}, {rounds} rounds, clip {clip:g}\n")


def _measure(
    common: Mapping[str, Any],
    defense: str,
    epsilon: float | None,
    sampling: Mapping[str, Any],
) -> Row:
    spec = defense if epsilon is None else f"{defense},epsilon={epsilon}"
    cohorts = str(sampling.get("kind", "all"))
    click.echo(f"{spec} {cohorts}", err=True)
    given = {**common, "sampling": dict(sampling)}
    settings = run_settings(given, {"defense": [spec]})
    name = defense.partition(":")[0]
    try:
        figures, floors, told = _run(settings)
    except PrivfedError as error:
        if error.exit_code != PrivfedError.exit_code:  # unusable settings or data
            raise
        return Row(name, cohorts, epsilon, failure=str(error))
    return Row(name, cohorts, epsilon, told, figures, floors)


def _run(
    settings: RunSettings,
) -> tuple[Mapping[str, Figure], Mapping[str, float], str]:
    with Line(settings.seed, settings.seeds) as progress:
        result = execute(settings, True, progress)
    floors = {key: next(iter(told.values())) for key, told in result.references.items()}
    told = [promise.sentence() for promise in result.privacy.values()]
    return result.figures, floors, " ".join(told)


def _show(rows: Sequence[Row], heading: str) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("epsilon", justify="right")
    columns = [("user_dp", "all"), ("user_dp", "poisson"), ("ldp", "all")]
    for name, cohorts in columns:
        table.add_column(f"{name}\n{cohorts}", justify="right")
    found = {(row.defense, row.cohorts, row.epsilon): row for row in rows}
    for epsilon in LOCAL:
        cells = [_cell(found.get((*column, epsilon))) for column in columns]
        table.add_row(f"{epsilon:g}", *cells)
    plain = rows[0]
    console = Console()
    console.print(heading, highlight=False, soft_wrap=True)
    console.print(table)
    console.print(f"\nHR@10; without any defense {_cell(plain)}", highlight=False)
    if KEY in plain.references:
        console.print(f"popularity alone {plain.references[KEY]:.3f}", highlight=False)


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    if row.failure:
        return "diverged"
    return f"{row.figures[KEY].value:.3f}"


if __name__ == "__main__":
    main()
