"""PFedRec on MovieLens-100K: the published protocol, a clean one, and a control.

The released code draws training negatives from items that a client meets neither in
training nor in validation nor in test, so the held-out items are the only unknown
items that are never pushed down. The control shows what this alone is worth: each
client trains by itself, on a table of random numbers, and nothing is shared.

    python benchmarks/pfedrec_ml100k.py --data ml-100k

Zhang et al., Dual Personalization on Federated Recommendation, IJCAI 2023.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from privfed.choices import Chosen
from privfed.cli.progress import Line
from privfed.config import RunSettings, run_settings
from privfed.data.world import Shape
from privfed.experiment import execute
from privfed.interfaces import Method
from privfed.methods.backbone import HEAD, LinearBackbone
from privfed.methods.local_sgd import Rates
from privfed.methods.parts import Part
from privfed.methods.pfedrec import PFedRec
from privfed.metrics.intervals import over_seeds
from privfed.result import Figure, Result

METRICS = ("hr@10", "ndcg@10")
EARLY = 30  # rounds; the second figure is that of the best validation round
OFFICIAL_BEST = (0.7243, 0.4401)  # the authors' code, round 70 of 100, one run
OFFICIAL_CURVE = {  # the authors' code, one run: HR@10 and NDCG@10 by rounds done
    11: (0.5133, 0.2730),
    21: (0.6394, 0.3585),
    31: (0.6935, 0.4031),
    41: (0.7169, 0.4179),
    51: (0.7063, 0.4277),
    61: (0.7137, 0.4357),
    71: (0.7243, 0.4372),
    81: (0.7243, 0.4374),
    91: (0.7190, 0.4384),
    100: (0.7200, 0.4498),
}


@dataclass(frozen=True)
class Alone(LinearBackbone):
    """The same local training with nothing shared: the item table stays private."""

    width: int = 32
    epochs: int = 1
    batch: int = 256
    item_rate: float = 80.0
    item_std: float | None = 1.0
    negatives_distinct: bool = True

    keeps = "everything"
    sends = "nothing"
    paper = "control of this script"

    @property
    def weighted(self) -> bool:
        return False

    def tables(self, width: int) -> Sequence[Part]:
        return [Part("items", "rows", (width,), private=True, std=self.item_std)]

    def rates(self, shape: Shape, round: int) -> Rates:
        lr = self.learning_rate
        return {HEAD: lr, "items": lr * shape.items * self.item_rate}

    def phases(self, shape: Shape, round: int) -> Sequence[Rates]:
        rates = self.rates(shape, round)
        return [{HEAD: rates[HEAD]}, {"items": rates["items"]}]


@dataclass(frozen=True)
class Case:
    """One row of the study."""

    name: str
    method: Method
    view: str
    rounds: int | None = None  # None: as asked


CASES = (
    Case(
        "published",
        PFedRec(negatives_exclude="all_interactions", view="local"),
        "local",
    ),
    Case(
        "published",
        PFedRec(negatives_exclude="all_interactions", view="global"),
        "global",
    ),
    Case("clean", PFedRec(view="local"), "local"),
    Case("clean", PFedRec(view="global"), "global"),
    Case("alone", Alone(negatives_exclude="all_interactions"), "own", EARLY),
    Case("alone", Alone(), "own", EARLY),
)


@dataclass(frozen=True)
class Row:
    """What one case measured."""

    protocol: str
    negatives_exclude: str
    view: str
    early: Mapping[str, Figure]  # after EARLY rounds
    best: Mapping[str, Figure]  # at the best validation round
    popularity: Mapping[str, float]
    curve: Mapping[int, tuple[float, float]]
    warnings: tuple[str, ...]
    run: str


@click.command(help=__doc__)
@click.option("--data", default="ml-100k", show_default=True, help="Name or path.")
@click.option("--seeds", default=3, show_default=True)
@click.option("--rounds", default=100, show_default=True, help=f"At least {EARLY}.")
@click.option("--workers", default=1, show_default=True)
@click.option(
    "--out",
    default=Path("runs/pfedrec-ml100k"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Run folders; a second call goes on from them.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def main(
    data: str, seeds: int, rounds: int, workers: int, out: Path, as_json: bool
) -> None:
    """Run every case and print one table."""
    if rounds < EARLY:
        raise click.BadParameter(f"--rounds must be at least {EARLY}")
    common = {
        "data": {"data": data, "split": "leave-one-out", "features": []},
        "protocol": {"ranking": "sampled", "negatives": 99, "every": 10},
        "attack": [],
        "seeds": seeds,
        "machine": {"workers": workers},
        "checkpoint_every": rounds,
        "out": str(out),
    }
    base = run_settings(common, {"rounds": rounds})
    rows = [_measure(case, base) for case in CASES]
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    console = Console(width=120)
    console.print(_table(rows))
    for warning in dict.fromkeys(w for row in rows for w in row.warnings):
        console.print(f"\nall_interactions: {warning}")
    console.print(_curve(rows[0]))


def _measure(case: Case, base: RunSettings) -> Row:
    settings = replace(
        base,
        method=Chosen(type(case.method).__name__.lower(), case.method),
        rounds=case.rounds or base.rounds,
    )
    click.echo(f"{case.name}, {settings.method.spec}", err=True)
    with Line(settings.seed, settings.seeds) as progress:
        result = execute(settings, True, progress)
    return Row(
        case.name,
        settings.method.row()["negatives_exclude"],
        case.view,
        {name: _at(result, name, EARLY) for name in METRICS},
        {name: result.figures[f"utility.{name}"] for name in METRICS},
        {name: result.references[f"utility.{name}"]["popularity"] for name in METRICS},
        _curve_of(result),
        tuple(case.method.warnings()),
        result.id,
    )


def _each(result: Result, name: str, round: int) -> list[float]:
    """A figure of every seed after so many rounds; empty where not measured."""
    key = f"utility.{name}"
    return [r[key] for r in result.rounds if r["round"] == round and key in r]


def _at(result: Result, name: str, round: int) -> Figure:
    values = _each(result, name, round)
    mean = sum(values) / len(values)
    if len(values) < 2:
        return Figure(mean)
    return Figure(mean, *over_seeds(values), "seeds")


def _curve_of(result: Result) -> dict[int, tuple[float, float]]:
    measured = {int(row["round"]) for row in result.rounds if "utility.hr@10" in row}
    return {
        n: (_at(result, "hr@10", n).value, _at(result, "ndcg@10", n).value)
        for n in sorted(measured)
    }


def _table(rows: Sequence[Row]) -> Table:
    table = Table(title="PFedRec, ML-100K, 99 negatives: HR@10 / NDCG@10", box=None)
    for name in ("protocol", "negatives exclude", "view"):
        table.add_column(name, no_wrap=True)
    for name in (f"{EARLY} rounds", "+/-", "validation's round", "+/-"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = (row.protocol, row.negatives_exclude, row.view)
        best = (_pair(row.best), _half(row.best)) if row.protocol != "alone" else ()
        table.add_row(*cells, _pair(row.early), _half(row.early), *best)
    early, best_of = (_numbers(*two) for two in (OFFICIAL_CURVE[31], OFFICIAL_BEST))
    told = ("authors' code, 31", "all_interactions", "local", early, "", best_of)
    table.add_row(*told)
    floor = rows[0].popularity
    table.add_row("popularity", "", "", _numbers(*(floor[name] for name in METRICS)))
    return table


def _pair(figures: Mapping[str, Figure]) -> str:
    return _numbers(*(figures[name].value for name in METRICS))


def _half(figures: Mapping[str, Figure]) -> str:
    """Half the width of each interval over seeds."""
    high = [(figures[name].high, figures[name].value) for name in METRICS]
    if any(top is None for top, _ in high):
        return ""
    return _numbers(*(top - value for top, value in high if top is not None))


def _numbers(*values: Any) -> str:
    return " / ".join(f"{value:.3f}" for value in values)


def _curve(row: Row) -> Table:
    table = Table(title="\nPublished protocol, local view, by rounds done", box=None)
    for name in ("rounds", "privfed", "rounds", "authors' code"):
        table.add_column(name, justify="right")
    mine = [(str(n), _numbers(*pair)) for n, pair in row.curve.items()]
    theirs = [(str(n), _numbers(*pair)) for n, pair in OFFICIAL_CURVE.items()]
    for (n, ours), (k, other) in zip(mine, theirs, strict=False):
        table.add_row(n, ours, k, other)
    return table


if __name__ == "__main__":
    main()
