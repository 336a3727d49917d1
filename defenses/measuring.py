"""What the studies of uploads and of regularizers share: runs, and tables of them.

Every row of a table is a whole run; the runs of a table share every other random draw,
so that rows can be compared.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import click
from rich.console import Console
from rich.table import Table

from privfed import figures
from privfed.adversary import Attack
from privfed.channels.plain import Plain
from privfed.choices import choose
from privfed.cli.progress import Line
from privfed.data.load import DataSettings, load
from privfed.data.world import Task, World
from privfed.errors import PrivfedError
from privfed.machine import Machine
from privfed.report.words import number
from privfed.result import Figure
from privfed.rounds import Setup, run
from privfed.seeds import Seeds

_WIDTH = 110


@dataclass(frozen=True)
class Bench:
    """What all runs of a table have in common."""

    method: str  # a spec
    data: str
    rounds: int
    attacks: Mapping[str, Attack]
    columns: Mapping[str, str]  # figure key to heading
    seed: int = 0
    workers: int = 1


@dataclass(frozen=True)
class Row:
    """What one run measured."""

    name: str
    figures: Mapping[str, Figure] = field(default_factory=dict)
    failure: str = ""  # why there are no figures


def world_of(data: str, task: Task) -> World:
    """A data set by name or path, split for a task."""
    return load(DataSettings(data), task).world


def measure(bench: Bench, name: str, *defenses: str) -> Row:
    """One run under some defenses, given as specs; a failure to learn is a result."""
    part = choose("method", bench.method).part
    chain = tuple(choose("defense", one).part for one in defenses)
    world = world_of(bench.data, part.task)
    click.echo(name, err=True)
    setup = Setup(
        world, part, Plain(), chain, bench.attacks, rounds=bench.rounds, seed=bench.seed
    )
    try:
        with Line(bench.seed, 1) as line:
            outcome = run(
                setup,
                Machine(workers=bench.workers),
                progress=lambda at, of, row: line(bench.seed, at, of, row),
            )
    except PrivfedError as error:
        if error.exit_code != PrivfedError.exit_code:  # unusable settings or data
            raise
        return Row(name, failure=str(error))
    draws = Seeds(bench.seed)("bootstrap")
    leaked = figures.recovered([outcome], draws).figures
    found = {**figures.utility([outcome], draws), **leaked, **figures.costs([outcome])}
    return Row(name, {key: found[key] for key in bench.columns if key in found})


def tell(tables: Mapping[str, tuple[Bench, Sequence[Row]]], as_json: bool) -> None:
    """Print tables by heading, or all of their rows as JSON."""
    if as_json:
        plain = {
            heading: [asdict(row) for row in rows]
            for heading, (_, rows) in tables.items()
        }
        click.echo(json.dumps(plain, indent=2))
        return
    for heading, (bench, rows) in tables.items():
        _console().print(f"\n{heading}", highlight=False, soft_wrap=True)
        _show(bench, rows)


def _show(bench: Bench, rows: Sequence[Row]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in bench.columns.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        cells = [_cell(key, row) for key in bench.columns]
        table.add_row(row.name, *(["diverged"] if row.failure else cells))
    _console().print(table)


def _console() -> Console:
    """Wide enough for a table, also where the output is a file."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH)


def _cell(key: str, row: Row) -> str:
    if key not in row.figures:
        return ""
    value = row.figures[key].value
    return number(key, value) if key.startswith("cost") else f"{value:.3f}"
