"""Claims of a reproduction: what was published, what comes out here, and a verdict."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import click
from rich.console import Console
from rich.table import Table

Rule = Literal["about", "at least", "at most"]


@dataclass(frozen=True)
class Claim:
    """One figure beside the one that it should reproduce.

    ``about`` holds within ``tolerance`` of ``published``; ``at least`` and ``at most``
    hold from ``published`` on, less or plus the tolerance. ``source`` says who
    published or measured it.
    """

    name: str
    published: float
    ours: float
    tolerance: float
    source: str
    rule: Rule = "about"

    @property
    def holds(self) -> bool:
        """Whether the figure was reproduced; NaN never is."""
        gap = self.ours - self.published
        if self.rule == "at least":
            return gap >= -self.tolerance
        if self.rule == "at most":
            return gap <= self.tolerance
        return abs(gap) <= self.tolerance


def tell(claims: Sequence[Claim], as_json: bool = False) -> None:
    """Print every claim with its verdict; exit with 1 where one does not hold."""
    if as_json:
        rows = [{**asdict(one), "holds": one.holds} for one in claims]
        click.echo(json.dumps(rows, indent=2))
    else:
        console = Console()
        wide = console if console.is_terminal else Console(width=110)
        wide.print(table(claims), highlight=False)
    if not all(one.holds for one in claims):
        raise SystemExit(1)


def table(claims: Sequence[Claim]) -> Table:
    """The claims, one a row."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("claim")
    for heading in ("published", "ours", "tolerance"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("verdict", no_wrap=True)
    shown.add_column("source")
    for one in claims:
        published = f"{_BOUND[one.rule]}{one.published:.4g}"
        verdict = "holds" if one.holds else "DOES NOT HOLD"
        cells = (published, f"{one.ours:.4g}", f"{one.tolerance:.2g}", verdict)
        shown.add_row(one.name, *cells, one.source)
    return shown


_BOUND = {"about": "", "at least": ">= ", "at most": "<= "}
