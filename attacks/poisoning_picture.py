"""ER@10 of a target against the share of malicious clients, as a picture.

    python attacks/poisoning_picture.py --data ml-100k --out runs/poisoning.png
    python attacks/poisoning_picture.py --defense norm_bound --seeds 3

Two panels: no defense, and the one that stops most in poisoning_matrix.py. A line for
each attack, the median over seeds, each of which draws another target; the range over
seeds as a band. A share that is less than one client is one client. Shilling profiles,
which all end near zero, share a color. The training is that of the matrix. Finished
runs are kept in --runs, JSON lines, and not made again; matrix and picture may share
that file. Writes SVG and PNG; needs the extra "report".
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from at_hand import at_hand
from poisoned_cells import Cell, Spread, made
from poisoning_matrix import ATTACKS, DEFENSES
from rich import box
from rich.console import Console
from rich.table import Table

from privfed.errors import MissingExtra

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHARES = (0.001, 0.005, 0.01, 0.03, 0.05, 0.1)
NONE = "none"
# Okabe and Ito's colors, which most color-blind readers tell apart
COLORS: Mapping[str, str] = {
    "fedrecattack": "#d55e00",
    "a_ra": "#56b4e9",
    "a_hum": "#0072b2",
    "pipattack": "#cc79a7",
    "pieck_ipe": "#009e73",
    "pieck_uea": "#e69f00",
    "explicit_boosting": "#000000",
}
_SHILLING = "#999999"
_MARKERS = "ov^sDPX*<>hp"
Lines = Mapping[tuple[str, str], Sequence[Spread | None]]  # by defense and attack


@click.command(help=__doc__)
@click.option("--data", default=at_hand, help="Name or path.  [default: ml-100k]")
@click.option(
    "--defense",
    default="norm_bound",
    show_default=True,
    type=click.Choice([name for name in DEFENSES if name != NONE]),
)
@click.option("--attack", "attacks", multiple=True, help="[default: every one]")
@click.option("--target", default="tail", show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--jobs", default=os.cpu_count() or 1, show_default="cores")
@click.option(
    "--runs",
    default=Path("runs/poisoning_matrix.jsonl"),
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
)
@click.option(
    "--out",
    default=Path("runs/poisoning.png"),
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
)
@click.option("--json", "as_json", is_flag=True, help="Print all runs as JSON.")
def main(
    data: str,
    defense: str,
    attacks: Sequence[str],
    target: str,
    seeds: int,
    jobs: int,
    runs: Path,
    out: Path,
    as_json: bool,
) -> None:
    """Make the runs that are missing, print their figures and draw them."""
    _refuse_without_matplotlib()
    names = attacks or ATTACKS

    def cell(which: str, attack: str, share: float, seed: int) -> Cell:
        row = DEFENSES[which]
        more = (share, target, row.epochs, row.cohort)
        return Cell(data, row.method, row.defense, attack, *more, seed)

    both = (NONE, defense)
    grid = {
        (which, attack): [
            [cell(which, attack, share, seed) for seed in range(seeds)]
            for share in SHARES
        ]
        for which in both
        for attack in names
    }
    asked = [one for points in grid.values() for point in points for one in point]
    asked.sort(key=lambda one: one.seed)
    found = made(asked, runs, jobs, _tell)
    lines = {
        key: [Spread.of([found[one].er for one in point]) for point in points]
        for key, points in grid.items()
    }
    method = DEFENSES[NONE].method
    title = f"{method} on {data}, {target} targets, {seeds} seeds"
    draw(lines, both, names, title, out)
    if as_json:
        each = [{**asdict(one), **asdict(found[one])} for one in asked]
        click.echo(json.dumps(each, indent=2))
        return
    for which in both:
        heading = f"\nER@10 by share of malicious clients, defense: {which}\n"
        table = _table(lines, which, names)
        Console(width=170).print(heading, table, sep="\n", highlight=False)


def _tell(number: int, of: int, cell: Cell) -> None:
    words = f"{cell.defense} {cell.attack} {cell.share:g} seed {cell.seed}"
    click.echo(f"{number} of {of}: {words}", err=True)


def _refuse_without_matplotlib() -> None:
    """Raise MissingExtra where nothing can be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtra("matplotlib", "report", "drawing") from error


def _table(lines: Lines, defense: str, attacks: Sequence[str]) -> Table:
    table = Table(box=box.MARKDOWN)
    table.add_column("attack", no_wrap=True)
    for share in SHARES:
        table.add_column(f"{share:.1%}", justify="right", no_wrap=True)
    for attack in attacks:
        points = lines[defense, attack]
        table.add_row(attack, *(str(point) if point else "-" for point in points))
    return table


def draw(
    lines: Lines, defenses: Sequence[str], attacks: Sequence[str], title: str, out: Path
) -> None:
    """Draw a panel for each defense side by side, as SVG and as PNG."""
    from matplotlib.figure import Figure as Picture

    picture = Picture(figsize=(11, 5.6), layout="constrained")
    every = picture.subplots(1, len(defenses), sharey=True, squeeze=False)[0]
    for axes, defense in zip(every, defenses, strict=True):
        words = "no defense" if defense == NONE else f"--defense {defense}"
        axes.set_title(words, fontsize=10)
        for number, attack in enumerate(attacks):
            marker = _MARKERS[number % len(_MARKERS)]
            _line(axes, lines[defense, attack], attack, marker)
        _scale(axes)
    every[0].set_ylabel("ER@10 of the target")
    handles, labels = every[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=8)
    picture.suptitle(f"{title}: median, and range over seeds", fontsize=10)
    out.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".png", ".svg"):
        picture.savefig(out.with_suffix(suffix), dpi=160)


def _line(
    axes: "Axes", points: Sequence[Spread | None], attack: str, marker: str
) -> None:
    there = [
        (share, point)
        for share, point in zip(SHARES, points, strict=True)
        if point is not None
    ]
    shares = [share for share, _ in there]
    color = COLORS.get(attack, _SHILLING)
    middle = [point.middle for _, point in there]
    axes.plot(shares, middle, color=color, marker=marker, ms=4, lw=1.3, label=attack)
    low, high = ([getattr(point, n) for _, point in there] for n in ("low", "high"))
    axes.fill_between(shares, low, high, color=color, alpha=0.12, lw=0)


def _scale(axes: "Axes") -> None:
    axes.set_xscale("log")
    axes.set_xticks(SHARES, [f"{share:.1%}" for share in SHARES])
    axes.minorticks_off()
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("malicious clients, of the honest ones")
    axes.grid(alpha=0.25)


if __name__ == "__main__":
    main()
