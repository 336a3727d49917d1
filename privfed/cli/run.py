"""``privfed run``: train, attack, report."""

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from privfed.cli.options import layer, settable

if TYPE_CHECKING:
    from privfed.config import RunSettings
    from privfed.result import Result

_EPILOG = """\b
Examples:
  privfed run
  privfed run --method fedmr:backbone=fcf --defense dp:epsilon=4
  privfed run --data ml-100k --defense gaussian:variance=0.1 --seeds 3
  privfed run --data ratings.csv --sampling uniform --clients-per-round 50
  privfed run study.toml --json > result.json

\b
study.toml holds the same settings; the settings.toml in a run folder is one, with
every key there is:
  method = "fedmr:backbone=fcf"
  rounds = 50
  data = "ml-100k"
  [[defense]]
  name = "dp"
  epsilon = 4
  [sampling]
  kind = "uniform"
  clients_per_round = 50

An option wins over the environment (PRIVFED_<OPTION>, such as PRIVFED_SEED=1; for
--data it is PRIVFED_DATASET), that over STUDY.toml, and that over the default.
"""


@click.command(epilog=_EPILOG, short_help="Train, attack, report.")
@click.argument(
    "study",
    metavar="[STUDY.toml]",
    required=False,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@settable
@click.option("--resume", is_flag=True, help="Go on from this run's last checkpoint.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def run(
    study: Path | None, resume: bool, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Train a recommender on clients' own devices, attack what leaves them, and
    print one table: utility, leakage, cost and privacy.

    Every setting has a default, so `privfed run` alone does something. Parts
    (SPEC) take settings after a colon, NAME:KEY=VALUE,KEY=VALUE; `privfed list
    NAME` has them.
    """
    from privfed.config import read_study, run_settings

    settings = run_settings(read_study(study) if study else {}, layer(options))
    result = _execute(settings, resume, quiet)
    _print(result, as_json)
    click.echo(f"run folder: {settings.out / result.id}", err=True)


def _execute(settings: "RunSettings", resume: bool, quiet: bool) -> "Result":
    from privfed.cli.progress import Line
    from privfed.experiment import execute

    line = nullcontext(_ignore) if quiet else Line(settings.seed, settings.seeds)
    with line as progress:
        return execute(settings, resume, progress)


def _ignore(seed: int, round: float, rounds: int, figures: Mapping[str, float]) -> None:
    """Progress of a quiet run."""


def _print(result: "Result", as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(result.json(), indent=2, allow_nan=False))
        return
    from rich.console import Console

    from privfed.report.table import render

    Console().print(render(result))
