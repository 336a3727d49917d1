"""The leakage matrix: every method, every attack, under no defense and under six.

    python attacks/matrix.py --data ml-100k
    python attacks/matrix.py --method bpr --method fedmf --attack sign_pc

Each run trains a few rounds with a part of the clients in each, is watched by every
attack at once, and leaves a run folder in --out; a finished run is read from there and
not made again, so that a stopped matrix goes on. One table for each attack: a row for
each method, a column for each defense, in a cell the figure that the attack is judged
by. "+" marks an advantage over the prior alone whose 95 % interval lies above zero, "-"
an attack that does not apply, "x" a defense that does not go with the method. Why is in
--json.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

from privfed.built_in import BUILT_IN
from privfed.config import RunSettings, run_settings
from privfed.data.load import load
from privfed.errors import PrivfedError
from privfed.experiment import execute, run_id
from privfed.interfaces import Invites
from privfed.report.words import metric
from privfed.result import Figure

DEFENSES: Mapping[str, str] = {
    "none": "none",
    "gaussian": "gaussian",
    "dp": "dp:epsilon=8",
    "ldp": "ldp:epsilon=8",
    "pseudo": "pseudo_items",
    "secagg": "secagg",
    "he": "he",
}
SAME = ("fedmr_paper", "fedmr_release")  # fedmr again, with other settings
METHODS = tuple(name for name in BUILT_IN["method"] if name not in SAME)
FEW = (  # what searches or trains anew for each victim looks at a few
    "likelihood_ratio:sizes=4,shadows=8,victims=100",
    "imia:victims=20",
    "raifle:victims=4,iterations=20",
    "inversion:victims=8",
)
_GAIN = "_advantage"
# Whole tables come and go; handing their memory back each time is half of the time.
_KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}


@dataclass(frozen=True)
class Cell:
    """What one attack reached in one run; ``reason`` says why it reached nothing."""

    method: str
    defense: str
    attack: str
    metric: str = ""
    figure: Figure | None = None
    prior: float | None = None
    advantage: Figure | None = None
    reason: str = ""

    @property
    def leaks(self) -> bool:
        """Whether it is surely better than the prior alone."""
        return bool(self.advantage and (self.advantage.low or 0.0) > 0)


@dataclass(frozen=True)
class Asked:
    """What all runs have in common."""

    data: str
    rounds: int
    cohort: int
    seed: int
    attacks: Sequence[str]
    out: Path


@click.command(help=__doc__)
@click.option("--data", default="demo", show_default=True, help="Name or path.")
@click.option("--method", "methods", multiple=True, help="[default: every one]")
@click.option("--defense", "defenses", multiple=True, help="[default: none and six]")
@click.option("--attack", "attacks", multiple=True, help="[default: every one]")
@click.option("--rounds", default=3, show_default=True)
@click.option("--cohort", default=60, show_default=True, help="Clients in a round.")
@click.option("--seed", default=0, show_default=True)
@click.option("--jobs", default=os.cpu_count() or 1, show_default="cores")
@click.option(
    "--out",
    default=Path("runs/matrix"),
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Run folders.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the cells as JSON.")
def main(
    data: str,
    methods: Sequence[str],
    defenses: Sequence[str],
    attacks: Sequence[str],
    rounds: int,
    cohort: int,
    seed: int,
    jobs: int,
    out: Path,
    as_json: bool,
) -> None:
    """Run what is not there yet, then print a table for each attack."""
    asked = Asked(data, rounds, cohort, seed, attacks or ("all", *FEW), out)
    pairs = [*product(methods or METHODS, defenses or DEFENSES)]
    cells = [cell for row in _measured(asked, pairs, jobs) for cell in row]
    if as_json:
        click.echo(json.dumps([asdict(cell) for cell in cells], indent=2))
        return
    console = Console()
    console = console if console.is_terminal else Console(width=100)
    for heading, made in _tables(cells):
        console.print(f"\n{heading}", made, sep="\n", highlight=False)
    for reason in dict.fromkeys(cell.reason for cell in cells if not cell.attack):
        console.print(f"x: {reason}", highlight=False)


def _measured(
    asked: Asked, pairs: Sequence[tuple[str, str]], jobs: int
) -> Sequence[Sequence[Cell]]:
    """The cells of every run, in the order asked for."""
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    os.environ.update(_KEPT)
    with (
        Progress(*columns, console=console) as progress,
        ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as crew,
    ):
        task = progress.add_task("", total=len(pairs))
        waiting = {crew.submit(_cells, asked, *pair): pair for pair in pairs}
        for done in as_completed(waiting):
            progress.advance(task)
            if not progress.console.is_terminal:
                console.print(" ".join(waiting[done]), highlight=False)
            done.result()
    found = {pair: done.result() for done, pair in waiting.items()}
    return [found[pair] for pair in pairs]


def _cells(asked: Asked, method: str, defense: str) -> Sequence[Cell]:
    """One run, in a process of its own."""
    import torch

    torch.set_num_threads(1)
    try:
        return [*_of(_result(_settings(asked, method, defense)), method, defense)]
    except PrivfedError as error:
        return [Cell(method, defense, "", reason=str(error))]


def _result(settings: RunSettings) -> Mapping[str, Any]:
    """A finished run's result, read where it was made before."""
    source = load(settings.data, settings.method.part.task)
    path = settings.out / run_id(settings, source) / "result.json"
    if not path.exists():
        execute(settings, True, lambda *_: None)
    known: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return known


def _settings(asked: Asked, method: str, defense: str) -> RunSettings:
    plain = {
        "method": method,
        "data": {"data": asked.data},
        "rounds": asked.rounds,
        "seed": asked.seed,
        "protocol": {"every": asked.rounds},
        "attack": list(asked.attacks),
        "defense": [DEFENSES.get(defense, defense)],
        "machine": {"workers": 1},
        "checkpoint_every": asked.rounds,
        "out": str(asked.out),
    }
    settings = run_settings(plain)
    if isinstance(settings.method.part, Invites):  # its server chooses who comes
        return settings
    some = {"kind": "uniform", "clients_per_round": asked.cohort}
    return run_settings(plain, {"sampling": some})


def _of(found: Mapping[str, Any], method: str, defense: str) -> Iterator[Cell]:
    """The cells of a result as JSON."""
    figures = {key: Figure(**one) for key, one in found["figures"].items()}
    for spec in found["attacks"]:
        attack = spec.partition(":")[0]
        if attack in found["not_applicable"]:
            reason = found["not_applicable"][attack]
            yield Cell(method, defense, attack, reason=reason)
            continue
        mine = f"leakage.{attack}."
        gain = next(k for k in figures if k.startswith(mine) and k.endswith(_GAIN))
        lead = gain.removesuffix(_GAIN)
        prior = found["references"].get(lead, {}).get("prior")
        name = lead.removeprefix(mine)
        yield Cell(method, defense, attack, name, figures[lead], prior, figures[gain])


def _tables(cells: Sequence[Cell]) -> Iterator[tuple[str, Table]]:
    """Heading and table of each attack that applied anywhere."""
    refused = {(c.method, c.defense) for c in cells if not c.attack}
    for attack in dict.fromkeys(cell.attack for cell in cells if cell.attack):
        mine = {(c.method, c.defense): c for c in cells if c.attack == attack}
        told = [cell for cell in mine.values() if cell.figure]
        if told:
            heading = f"{attack}: {metric(told[0].metric)}"
            yield heading, _table(mine, refused, cells)


def _table(
    mine: Mapping[tuple[str, str], Cell],
    refused: set[tuple[str, str]],
    cells: Sequence[Cell],
) -> Table:
    defenses = dict.fromkeys(cell.defense for cell in cells)
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("prior", *defenses):
        table.add_column(name, justify="right", no_wrap=True)
    for method in dict.fromkeys(cell.method for cell in cells):
        row = {d: mine.get((method, d)) for d in defenses}
        told = [cell for cell in row.values() if cell and cell.figure]
        if not told:
            continue
        prior = "" if told[0].prior is None else f"{told[0].prior:.2f} "
        shown = [_cell(row[d], (method, d) in refused) for d in defenses]
        table.add_row(method, prior, *shown)
    return table


def _cell(cell: Cell | None, refused: bool) -> str:
    if refused:
        return "x "
    if cell is None or cell.figure is None:
        return "- "
    return f"{cell.figure.value:.2f}{'+' if cell.leaks else ' '}"


if __name__ == "__main__":
    main()
