"""FedMR's noise table: N(0, 0.1) on KU, in each way that the paper can be read.

Table 4 says that Gaussian noise of variance 0.1 is added to the gradients of the shared
parts. On an item table the change that is uploaded is the gradient times a learning
rate, here from 0.1 to 2,800: which of the two is noised decides everything. So does
whether rows that a client did not touch get noise as well. Each of the four readings is
run over five backbones, under the published protocol and under a clean one; settings
are those of benchmarks/fedmr_ku.py, which says where they come from.

    python defenses/noise_ku.py --data ku

Full ranking, HR@50 and NDCG@50 at the round that validation chose, evaluated every 5
rounds. A run that diverges is a result as well. Every row is a run folder, so a second
call goes on where the first one stopped.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from privfed.cli.progress import Line
from privfed.config import RunSettings, run_settings
from privfed.errors import PrivfedError
from privfed.experiment import execute
from privfed.result import Result

Pair = tuple[float, float]  # HR@50, NDCG@50
PAIR = ("utility.hr@50", "utility.ndcg@50")
# Whether N(0, 0.1) is added to the gradient or to the change that is uploaded (which is
# the gradient times the learning rate), and whether untouched rows get it as well.
READINGS: Mapping[str, str] = {
    "gradient, all rows": "gaussian:variance=0.1",
    "gradient, touched rows": "gaussian:variance=0.1,rows=touched",
    "change, all rows": "gaussian:variance=0.1,units=upload",
    "change, touched rows": "gaussian:variance=0.1,units=upload,rows=touched",
}
# Splits of KU: as published, and with held-out items that somebody trains on.
SPLITS: Mapping[str, str] = {"published": "given", "clean": "warm"}


@dataclass(frozen=True)
class Backbone:
    """FedMR over one backbone: the paper's figures, and settings by protocol.

    Settings are those of benchmarks/fedmr_ku.py, which says where they come from.
    """

    name: str
    quiet: Pair  # Tables 2 and 3
    noisy: Pair  # Table 4
    published: str
    clean: str


def _backbone(
    name: str, quiet: Pair, noisy: Pair, published: str, clean: str
) -> Backbone:
    spec = f"backbone={name.lower()}"
    return Backbone(
        name,
        quiet,
        noisy,
        f"fedmr_release:{spec},{published}",
        f"fedmr:{spec},{clean},epochs=1",
    )


BACKBONES = (
    _backbone(
        "FedAvg",
        (0.5147, 0.1491),
        (0.4969, 0.1416),
        "learning_rate=0.01",
        "learning_rate=1,item_rate=2800",
    ),
    _backbone(
        "FCF",
        (0.5539, 0.1597),
        (0.5378, 0.1402),
        "learning_rate=0.1",
        "learning_rate=2,item_rate=1",
    ),
    _backbone(
        "FedNCF",
        (0.1961, 0.0609),
        (0.1680, 0.0420),
        "learning_rate=0.1",
        "learning_rate=2,item_rate=1",
    ),
    _backbone(
        "PFedRec",
        (0.2157, 0.0616),
        (0.1965, 0.0586),
        "learning_rate=0.1",
        "learning_rate=1,item_rate=1",
    ),
    _backbone(
        "FedRAP",
        (0.3824, 0.1305),  # Table 2 has 0.4824, which Tables 3 and 4 do not repeat
        (0.3725, 0.1236),
        "learning_rate=0.1",
        "learning_rate=2,item_rate=1,own_rate=0.0001",
    ),
)


@dataclass(frozen=True)
class Noised:
    """One backbone under one reading of the noise, at its best validation round."""

    protocol: str
    backbone: str
    reading: str  # "none" is the run without noise
    settings: str
    paper: Pair
    value: Pair | None  # None where training diverged
    round: int = 0
    popularity: Pair = (0.0, 0.0)
    failure: str = ""


@click.command(help=__doc__)
@click.option("--data", default="ku", show_default=True, help="Name or path of KU.")
@click.option(
    "--protocol",
    default="both",
    show_default=True,
    type=click.Choice([*SPLITS, "both"]),
)
@click.option(
    "--backbone",
    "chosen",
    multiple=True,
    type=click.Choice([one.name for one in BACKBONES], case_sensitive=False),
    help="May be given more than once; all by default.",
)
@click.option("--rounds", default=40, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option(
    "--out",
    default=Path("runs/noise-ku"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Run folders; a second call goes on from them.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def main(
    data: str,
    protocol: str,
    chosen: Sequence[str],
    rounds: int,
    seed: int,
    workers: int,
    out: Path,
    as_json: bool,
) -> None:
    """Run every backbone under every reading and print a table for each protocol."""
    told, console = [], Console(width=120)
    for name in SPLITS:
        if protocol not in (name, "both"):
            continue
        common = {
            "data": {"data": data, "split": SPLITS[name]},
            "protocol": {"ranking": "full", "at": [50], "every": 5},
            "attack": [],
            "rounds": rounds,
            "seed": seed,
            "machine": {"workers": workers},
            "out": str(out),
        }
        rows = list(_noised(name, chosen, common))
        told += rows
        if not as_json:
            console.print(_table(name, rows))
    if as_json:
        click.echo(json.dumps([asdict(row) for row in told], indent=2))


def _noised(
    protocol: str, chosen: Sequence[str], common: Mapping[str, object]
) -> Iterator[Noised]:
    for one in BACKBONES:
        if chosen and one.name not in chosen:
            continue
        spec = getattr(one, protocol)
        for reading, defense in {"none": "none", **READINGS}.items():
            settings = run_settings(common, {"method": spec, "defense": [defense]})
            click.echo(f"{protocol}: {one.name}, noise {reading}", err=True)
            paper = one.quiet if reading == "none" else one.noisy
            yield _best(
                Noised(protocol, one.name, reading, settings.method.spec, paper, None),
                settings,
            )


def _best(row: Noised, settings: RunSettings) -> Noised:
    """The same with what the run measured in the round that validation chose."""
    found = _run(settings)
    if isinstance(found, str):
        return replace(row, failure=found)
    measured = [one for one in found.rounds if PAIR[0] in one]
    best = max(measured, key=lambda one: one["validation.ndcg@50"])
    hr, ndcg = (best[key] for key in PAIR)
    floor = [found.references.get(key, {}).get("popularity", 0.0) for key in PAIR]
    return replace(
        row,
        value=(hr, ndcg),
        round=int(best["round"]),
        popularity=(floor[0], floor[1]),
    )


def _run(settings: RunSettings) -> Result | str:
    """A run's result, or why it diverged."""
    try:
        with Line(settings.seed, settings.seeds) as progress:
            return execute(settings, True, progress)
    except PrivfedError as error:
        if error.exit_code != PrivfedError.exit_code:  # unusable settings or data
            raise
        return str(error)


def _table(protocol: str, rows: Sequence[Noised]) -> Table:
    table = Table(title=f"KU, {protocol} protocol: HR@50 / NDCG@50", box=None)
    for name in ("backbone", "noise of variance 0.1 on"):
        table.add_column(name, no_wrap=True)
    for name in ("paper", "change", "measured", "change", "round"):
        table.add_column(name, justify="right", no_wrap=True)
    quiet: Mapping[str, Noised] = {r.backbone: r for r in rows if r.reading == "none"}
    for row in rows:
        before = quiet[row.backbone]
        told = _pair(row.value) if row.value else "diverged"
        after = (row.paper, row.value)
        change = [
            "" if row is before or not a or not b else _percent(a, b)
            for a, b in zip(after, (before.paper, before.value), strict=True)
        ]
        at = str(row.round) if row.value else ""
        cells = (_pair(row.paper), change[0], told, change[1], at)
        table.add_row(row.backbone if row is before else "", row.reading, *cells)
    floor = next((row.popularity for row in rows if row.value), (0.0, 0.0))
    table.add_row("popularity", "", "", "", _pair(floor), "", "")
    return table


def _pair(pair: Pair) -> str:
    return f"{pair[0]:.3f} / {pair[1]:.3f}"


def _percent(after: Pair, before: Pair) -> str:
    return " / ".join(
        f"{100 * (a / b - 1):+.0f} %" for a, b in zip(after, before, strict=True)
    )


if __name__ == "__main__":
    main()
