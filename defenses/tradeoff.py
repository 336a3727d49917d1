"""What privacy costs and what it hides, in one picture: epsilon against both.

One method under differential privacy of three units, at each epsilon: of one
interaction (dp: every device noises its training), of a user with a trusted sum
(user_dp) and of a user with no trust at all (ldp). The picture has HR@10 on its left,
the F1 of sign_pc on its right. "inf" is the same defense without noise, clipping alone;
"none" is the method without a defense.

    python defenses/tradeoff.py --data ml-100k --out runs/tradeoff.png

Under user_dp the server that adds up is trusted: it sees clipped uploads without noise,
and sign_pc's F1 there is this server's. Who sees sums or models alone has no upload to
attack: that is a marker of its own.

Clips, and own_rate of dp, were chosen by hand at epsilon 8 on validation items, which
no guarantee covers. A run takes seconds on ml-100k; a finished one is kept in --cells
and not run again.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from tradeoff_picture import NOISELESS, Panel, Series, draw, refuse_without_matplotlib

from privfed.attacks.items.sign_pc import SignPC
from privfed.config import RunSettings, run_settings
from privfed.errors import PrivfedError
from privfed.experiment import execute
from privfed.result import Figure, Result
from privfed.views import ModelView, TotalView

METHOD = "bpr:width=8,start_size=0.1"
EPSILONS = ("1", "2", "4", "8", "16", NOISELESS)
HR, F1, AUC = "utility.hr@10", "leakage.sign_pc.f1", "leakage.sign_pc.auc"


@dataclass(frozen=True)
class Unit:
    """What a guarantee is about, and how its defense is called.

    ``quiet`` clips alike and adds no noise to speak of. ``trusted`` says whose view
    sign_pc has, where that is a trusted party's.
    """

    name: str
    spec: str
    quiet: str
    color: str
    trusted: str = ""

    def defense(self, epsilon: str) -> str:
        """The defense's spec at one epsilon."""
        if epsilon == NOISELESS:
            return self.quiet
        return f"{self.spec},epsilon={epsilon}"


_CLIPPED = "user_dp:clip=0.012,noise_multiplier=1e-6"  # ldp clips the same way
UNITS = (
    Unit(
        "interaction (dp)",
        "dp:clip=0.015,own_rate=30",
        "dp:clip=0.015,own_rate=30,noise_multiplier=0",
        "#0072b2",
    ),
    Unit(
        "user, trusted sum (user_dp)",
        "user_dp:clip=0.012",
        _CLIPPED,
        "#d55e00",
        "the trusted server",
    ),
    Unit("user, local (ldp)", "ldp:clip=0.012", _CLIPPED, "#009e73"),
)
PLAIN = "none"


@dataclass(frozen=True)
class Cell:
    """What one run measured; ``failure`` says why it measured nothing."""

    unit: str
    epsilon: str
    settings: str  # method, defense, data, rounds and seed
    spent: float | None = None  # what the guarantee says
    figures: Mapping[str, Figure] = field(default_factory=dict)
    floors: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""


@dataclass(frozen=True)
class Grid:
    """What all runs have in common."""

    method: str
    data: str
    rounds: int
    seed: int
    workers: int
    cells: Path


@click.command(help=__doc__)
@click.option("--method", default=METHOD, show_default=True, help="Any spec.")
@click.option("--data", default="demo", show_default=True, help="Name or path.")
@click.option("--rounds", default=40, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option(
    "--epsilon",
    "epsilons",
    multiple=True,
    default=EPSILONS,
    show_default=True,
    help="May be given more than once.",
)
@click.option(
    "--cells",
    default=Path("runs/tradeoff"),
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of finished runs; a second call goes on from them.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The picture, as PNG and as SVG: two files of this name.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the cells as JSON.")
def main(
    method: str,
    data: str,
    rounds: int,
    seed: int,
    workers: int,
    epsilons: Sequence[str],
    cells: Path,
    out: Path | None,
    as_json: bool,
) -> None:
    """Run what is not there yet, then print and draw."""
    if out is not None:
        refuse_without_matplotlib()  # before the runs, not after them
    grid = Grid(method, data, rounds, seed, workers, cells)
    found = list(_measured(grid, epsilons))
    if out is not None:
        title = f"{method}, {data}, {rounds} rounds"
        draw([*_panels(found)], epsilons, title, out)
    if as_json:
        click.echo(json.dumps([asdict(cell) for cell in found], indent=2))
    else:
        _show(found, grid)


def _measured(grid: Grid, epsilons: Sequence[str]) -> Iterator[Cell]:
    """Every cell, the plain run first; finished ones come from their files."""
    asked = [(PLAIN, PLAIN, PLAIN)]
    asked += [(u.name, e, u.defense(e)) for u in UNITS for e in epsilons]
    console = Console(stderr=True)
    with Progress(console=console) as progress:
        task = progress.add_task("cells", total=len(asked))
        for unit, epsilon, defense in asked:
            cell = _cell(grid, unit, epsilon, defense)
            value = cell.figures.get(HR)
            told = f"HR@10 {value.value:.4f}" if value else cell.failure
            console.print(f"{unit}, epsilon {epsilon}: {told}", highlight=False)
            progress.advance(task)
            yield cell


def _cell(grid: Grid, unit: str, epsilon: str, defense: str) -> Cell:
    settings = run_settings(
        {
            "method": grid.method,
            "data": {"data": grid.data},
            "rounds": grid.rounds,
            "seed": grid.seed,
            "protocol": {"every": 5},
            "attack": ["sign_pc"],
            "defense": [defense],
            "machine": {"workers": grid.workers},
            "out": str(grid.cells / "runs"),
        }
    )
    spec = f"{settings.method.spec} / {defense} / {grid.data} / "
    spec += f"{grid.rounds} rounds / seed {grid.seed}"
    path = grid.cells / f"{_file(unit)}-{epsilon}.json"
    known = _read(path)
    if known is not None and known.settings == spec:
        return known
    cell = _run(settings, Cell(unit, epsilon, spec))
    _write(path, cell)
    return cell


def _file(unit: str) -> str:
    """A file name for a unit: its words."""
    return "-".join(re.findall(r"[a-z_]+", unit))


def _run(settings: RunSettings, cell: Cell) -> Cell:
    try:
        result = execute(settings, True, lambda *_: None)
    except PrivfedError as error:
        if error.exit_code != PrivfedError.exit_code:  # unusable settings or data
            raise
        return Cell(cell.unit, cell.epsilon, cell.settings, failure=str(error))
    return _told(result, cell)


def _told(result: Result, cell: Cell) -> Cell:
    told = {key: result.figures[key] for key in (HR, F1, AUC) if key in result.figures}
    floors = {
        key: next(iter(result.references[key].values()))
        for key in (HR, F1, AUC)
        if key in result.references
    }
    spent = [promise.epsilon for promise in result.privacy.values()]
    return Cell(
        cell.unit,
        cell.epsilon,
        cell.settings,
        spent[0] if spent and cell.epsilon != NOISELESS else None,
        told,
        floors,
    )


def _read(path: Path) -> Cell | None:
    """A finished cell, None where there is none."""
    if not path.exists():
        return None
    known = json.loads(path.read_text(encoding="utf-8"))
    figures = {key: Figure(**value) for key, value in known.pop("figures").items()}
    return Cell(**known, figures=figures)


def _write(path: Path, cell: Cell) -> None:
    """Write a whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(asdict(cell), indent=2), encoding="utf-8")
    os.replace(beside, path)


def _show(cells: Sequence[Cell], grid: Grid) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("unit", "epsilon"):
        table.add_column(name, no_wrap=True)
    for name in ("HR@10", "95 %", "sign_pc F1", "AUC", "seen by"):
        table.add_column(name, justify="right", no_wrap=True)
    trusted = {unit.name: unit.trusted for unit in UNITS}
    for cell in cells:
        row = [cell.unit, cell.epsilon]
        if cell.failure:
            table.add_row(*row, "diverged")
            continue
        hr = cell.figures[HR]
        row += [f"{hr.value:.3f}", f"{hr.low:.3f} to {hr.high:.3f}"]
        row += [f"{cell.figures[key].value:.3f}" for key in (F1, AUC)]
        table.add_row(*row, trusted.get(cell.unit) or "any server")
    floors = next(cell.floors for cell in cells if cell.floors)
    low = [f"{floors[key]:.3f}" for key in (F1, AUC)]
    table.add_row("popularity alone", "", f"{floors[HR]:.3f}", "", *low)
    console = Console(width=110)
    heading = f"{grid.method} on {grid.data}, {grid.rounds} rounds, seed {grid.seed}\n"
    console.print(heading, highlight=False, soft_wrap=True)
    console.print(table)
    console.print(f"\n{_who_sees_less()}", highlight=False)


def _who_sees_less() -> str:
    """What sign_pc finds for those who see no single upload."""
    blind = not any(issubclass(view, SignPC.sees[0]) for view in (TotalView, ModelView))
    assert blind
    return (
        "Who sees sums or models alone: sign_pc is not applicable, it needs "
        f"{SignPC.sees[0].__name__}."
    )


def _panels(cells: Sequence[Cell]) -> Iterator[Panel]:
    """Utility, and what sign_pc finds."""
    plain = next(cell for cell in cells if cell.unit == PLAIN)
    for key, name in ((HR, "HR@10"), (F1, "F1 of sign_pc")):
        value = plain.figures.get(key)
        absent = [
            (f"{unit.name}: who sees sums or models: not applicable", unit.color)
            for unit in UNITS
            if unit.trusted and key == F1
        ]
        yield Panel(
            name,
            [_series(unit, cells, key) for unit in UNITS],
            None if value is None else value.value,
            plain.floors.get(key),
            absent,
        )


def _series(unit: Unit, cells: Sequence[Cell], key: str) -> Series:
    trusted = bool(unit.trusted) and key == F1
    name = f"{unit.name}: {unit.trusted}" if trusted else unit.name
    points = {
        cell.epsilon: cell.figures[key]
        for cell in cells
        if cell.unit == unit.name and key in cell.figures
    }
    return Series(name, unit.color, trusted, points)


if __name__ == "__main__":
    main()
