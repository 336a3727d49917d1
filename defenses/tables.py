"""What the studies of channels share: plain tables, and figures of runs in them."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from privfed.report.words import duration, size


def empty_table(first: str, *others: str) -> Table:
    """A table of names and right-aligned figures."""
    made = Table(box=None, pad_edge=False)
    made.add_column(first, no_wrap=True)
    for name in others:
        made.add_column(name, justify="right")
    return made


def show(console: Console, heading: str, made: Table) -> None:
    """Print a table under its heading."""
    console.print(f"\n{heading}\n", highlight=False, soft_wrap=True)
    console.print(made)


def show_runs(
    console: Console,
    heading: str,
    figures: Mapping[str, str],
    runs: Mapping[str, Mapping[str, float]],
) -> None:
    """Print a row for each channel's run; ``figures`` maps a key to its heading."""
    made = empty_table("channel", *figures.values())
    for name, told in runs.items():
        made.add_row(name, *(_value(key, told.get(key)) for key in figures))
    show(console, heading, made)


def _value(key: str, value: float | None) -> str:
    if value is None:
        return ""
    if "bytes" in key:
        return size(value)
    return duration(value) if key.endswith("seconds") else f"{value:.4f}"
