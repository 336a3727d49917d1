"""FedMR on KU: five backbones with and without it, the published way and a clean one.

The published protocol holds out items that occur in nobody's training data (43 % of
the test interactions), and draws negatives from trained items only: what was never
trained is never pushed down, and ranking such items first beats every published row.
The clean protocol holds out items that somebody else trains on (split "warm"), draws
negatives from all items, and its settings were tuned on validation items.

    python benchmarks/fedmr_ku.py --data ku

``--data`` is a folder with KU's inter.csv and feature matrices. Full ranking, HR@50
and NDCG@50 at the round that validation chose. Every row is a run folder, so a second
call goes on where the first one stopped.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click
from rich.console import Console
from rich.table import Table
from torch import Tensor

from privfed.cli.progress import Line
from privfed.config import run_settings
from privfed.data.load import DataSettings, load
from privfed.data.world import World
from privfed.errors import PrivfedError, SettingsError
from privfed.evaluation.ranking import rank_scores, reached
from privfed.experiment import execute
from privfed.metrics.intervals import over_seeds, paired
from privfed.metrics.score import means
from privfed.references import popularity, unseen_first
from privfed.result import Figure, Result

METRICS = ("hr@50", "ndcg@50")
EVERY = 5  # rounds between evaluations
Pair = tuple[float, float]  # HR@50, NDCG@50


@dataclass(frozen=True)
class Backbone:
    """A backbone's settings in each protocol, and the published figures."""

    name: str
    paper: tuple[Pair, Pair]  # vanilla, with FedMR: Table 2, column KU
    published: tuple[str, str]  # method specs: vanilla, with FedMR
    clean: tuple[str, str]


# The released configurations: 5 local epochs, 1 negative from items seen in training.
_AS_RELEASED = (
    "width=64,batch=2048,item_rate=1,item_std=none,"
    "epochs=5,negatives=1,negatives_pool=items_in_train"
)
BACKBONES = (
    Backbone(
        "FedAvg",
        ((0.1127, 0.0562), (0.5147, 0.1491)),
        (
            f"fedavg:learning_rate=0.01,{_AS_RELEASED}",
            "fedmr_release:backbone=fedavg,learning_rate=0.01",
        ),
        (
            "fedavg:learning_rate=0.1,item_rate=44800,epochs=5,item_std=none,batch=2048",
            "fedmr:backbone=fedavg,learning_rate=1,item_rate=2800,epochs=1",
        ),
    ),
    Backbone(
        "FCF",
        ((0.2255, 0.0643), (0.5539, 0.1597)),
        (
            f"fcf:learning_rate=0.1,{_AS_RELEASED}",
            "fedmr_release:backbone=fcf,learning_rate=0.1",
        ),
        (
            "fcf:learning_rate=0.1,item_rate=80,epochs=5,item_std=none,batch=2048",
            "fedmr:backbone=fcf,learning_rate=2,item_rate=1,epochs=1",
        ),
    ),
    Backbone(
        "FedNCF",
        ((0.1176, 0.0249), (0.1961, 0.0609)),
        (
            f"fedncf:learning_rate=0.1,{_AS_RELEASED}",
            "fedmr_release:backbone=fedncf,learning_rate=0.1",
        ),
        (
            "fedncf:learning_rate=0.5,item_rate=0.4,item_std=0.3,epochs=5,batch=2048",
            "fedmr:backbone=fedncf,learning_rate=2,item_rate=1,epochs=1",
        ),
    ),
    Backbone(
        "PFedRec",
        ((0.0637, 0.0230), (0.2157, 0.0616)),
        (
            f"pfedrec:learning_rate=0.1,{_AS_RELEASED}",
            "fedmr_release:backbone=pfedrec,learning_rate=0.1",
        ),
        (
            "pfedrec:width=64,learning_rate=0.1,item_rate=80,item_std=none,epochs=1",
            "fedmr:backbone=pfedrec,learning_rate=1,item_rate=1,epochs=1",
        ),
    ),
    Backbone(
        "FedRAP",
        ((0.4706, 0.1086), (0.4824, 0.1305)),  # Tables 3 and 4 have .3824 for .4824
        (
            "fedrap:learning_rate=0.1,apart=0.1,sparse=0.1,own_rate=1,decay=0.9,"
            f"{_AS_RELEASED}",
            "fedmr_release:backbone=fedrap,learning_rate=0.1",
        ),
        (
            "fedrap:learning_rate=0.1,item_rate=80,own_rate=0.0001,epochs=5,"
            "schedule=off,decay=1,item_std=none,batch=2048",
            "fedmr:backbone=fedrap,learning_rate=2,item_rate=1,own_rate=0.0001,epochs=1",
        ),
    ),
)
# The authors' code on the same files, 40 rounds, one run, its own protocol.
OFFICIAL: Mapping[str, Pair] = {
    "FedAvg": (0.0539, 0.0137),
    "FedAvg + FedMR": (0.0294, 0.0058),
    "FCF": (0.6078, 0.1274),
    "FCF + FedMR": (0.1569, 0.0485),
}


@dataclass(frozen=True)
class Protocol:
    """How rows are split, and when they stop."""

    name: Literal["published", "clean"]
    split: Literal["given", "warm"]
    rounds: tuple[int, int]  # vanilla, with FedMR
    patience: tuple[int, int]  # evaluations without a better validation figure


PROTOCOLS = (
    Protocol("published", "given", (100, 50), (4, 4)),  # 20 rounds, as released
    Protocol("clean", "warm", (100, 60), (10, 3)),
)


@dataclass(frozen=True)
class Row:
    """One method under one protocol, every seed at its best validation round."""

    protocol: str
    name: str
    paper: Pair
    settings: str
    values: Mapping[str, Sequence[float]]  # by metric: a value for each seed
    stopped: Sequence[int]  # best validation round of each seed
    failed: str = ""  # why there are no values

    def figure(self, metric: str) -> Figure:
        return _over(self.values[metric])


@click.command(help=__doc__)
@click.option("--data", default="ku", show_default=True, help="Name or path of KU.")
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(2))
@click.option(
    "--protocol",
    default="both",
    show_default=True,
    type=click.Choice(["published", "clean", "both"]),
)
@click.option("--rounds", type=click.IntRange(1), help="At most so many, in any row.")
@click.option("--workers", default=1, show_default=True)
@click.option(
    "--out",
    default=Path("runs/fedmr-ku"),
    show_default=True,
    type=click.Path(path_type=Path),
)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def main(
    data: str,
    seeds: int,
    protocol: str,
    rounds: int | None,
    workers: int,
    out: Path,
    as_json: bool,
) -> None:
    """Run every row and print a table for each protocol."""
    console, told = Console(width=150), []
    for chosen in PROTOCOLS:
        if protocol not in (chosen.name, "both"):
            continue
        base = _base(chosen, data, seeds, workers, out)
        floors = _floors(load(DataSettings(data, split=chosen.split)).world)
        rows = list(_rows(chosen, base, rounds))
        told.append(_json(chosen, rows, floors))
        if not as_json:
            console.print(_table(chosen, rows, floors))
    if as_json:
        click.echo(json.dumps(told, indent=2))


def _base(
    protocol: Protocol, data: str, seeds: int, workers: int, out: Path
) -> Mapping[str, object]:
    return {
        "data": {"data": data, "split": protocol.split},
        "protocol": {"ranking": "full", "at": [50], "every": EVERY},
        "attack": [],
        "seeds": seeds,
        "machine": {"workers": workers},
        "out": str(out),
    }


def _rows(
    protocol: Protocol, base: Mapping[str, object], most: int | None
) -> Iterator[Row]:
    for backbone in BACKBONES:
        for mixed, spec in enumerate(getattr(backbone, protocol.name)):
            rounds = min(protocol.rounds[mixed], most or protocol.rounds[mixed])
            own = {
                "method": spec,
                "rounds": rounds,
                "patience": protocol.patience[mixed],
            }
            name = backbone.name + " + FedMR" * mixed
            yield _row(protocol, name, backbone.paper[mixed], {**base, **own})


def _row(
    protocol: Protocol, name: str, paper: Pair, given: Mapping[str, object]
) -> Row:
    settings = run_settings(given)
    click.echo(f"{protocol.name}: {name} ({settings.method.spec})", err=True)
    try:
        with Line(settings.seed, settings.seeds) as progress:
            result = execute(settings, True, progress)
    except SettingsError:
        raise
    except (
        PrivfedError,
        ArithmeticError,
    ) as error:  # a seed diverged, which is a finding
        empty: dict[str, Sequence[float]] = dict.fromkeys(METRICS, ())
        return Row(
            protocol.name, name, paper, settings.method.spec, empty, (), str(error)
        )
    best = [_best(result, seed) for seed in result.seeds]
    values = {m: [float(row[f"utility.{m}"]) for row in best] for m in METRICS}
    stopped = [int(row["round"]) for row in best]
    return Row(protocol.name, name, paper, settings.method.spec, values, stopped)


def _best(result: Result, seed: int) -> Mapping[str, float]:
    """A seed's measurements in the round that validation chose."""
    mine = [r for r in result.rounds if r["seed"] == seed and "utility.hr@50" in r]
    return max(mine, key=lambda row: row["validation.ndcg@50"])


def _floors(world: World) -> dict[str, Pair]:
    """What rankers that learn nothing reach on the test items."""
    return {
        "popularity": _reached(world, popularity(world)),
        "unseen items first": _reached(world, unseen_first(world)),
    }


def _reached(world: World, scores: Tensor) -> Pair:
    marks = reached(world, scores, None, world.test)
    found = means([*rank_scores(marks, (50,)).items()])
    return found["hr@50"], found["ndcg@50"]


def _over(values: Sequence[float]) -> Figure:
    return Figure(sum(values) / len(values), *over_seeds(values), "seeds")


def _gain(rows: Sequence[Row], at: int) -> list[Figure]:
    """What FedMR adds to the row before it, seed by seed; empty where one failed."""
    mixed, vanilla = rows[at], rows[at - 1]
    if at % 2 == 0 or mixed.failed or vanilla.failed:
        return []
    found = []
    for metric in METRICS:
        first, second = mixed.values[metric], vanilla.values[metric]
        mean = (sum(first) - sum(second)) / len(first)
        found.append(Figure(mean, *paired(first, second), "seeds"))
    return found


def _verdict(figures: Sequence[Figure], floors: Sequence[float]) -> str:
    """Whether both intervals lie above, both figures below, or neither."""
    lows = [f.low for f in figures if f.low is not None]
    highs = [f.high for f in figures if f.high is not None]
    if all(low > floor for low, floor in zip(lows, floors, strict=True)):
        return "yes"
    if all(high < floor for high, floor in zip(highs, floors, strict=True)):
        return "no"
    return "unclear"


def _table(
    protocol: Protocol, rows: Sequence[Row], floors: Mapping[str, Pair]
) -> Table:
    table = Table(
        title=f"\nKU, {protocol.name} protocol, full ranking: HR@50 / NDCG@50",
        box=None,
        padding=(0, 2, 0, 0),
    )
    table.add_column("", no_wrap=True)
    for name in ("paper", "measured", "+/-", "round", "gain of FedMR"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("gain holds", "> popularity", "> unseen first"):
        table.add_column(name, no_wrap=True)
    for at, row in enumerate(rows):
        table.add_row(*_cells(rows, at, row, floors))
    for name, pair in floors.items():
        table.add_row(name, "", _numbers(*pair))
    if protocol.name == "published":
        for name, pair in OFFICIAL.items():
            table.add_row(f"{name}, authors' code", "", _numbers(*pair))
    return table


def _cells(
    rows: Sequence[Row], at: int, row: Row, floors: Mapping[str, Pair]
) -> list[str]:
    if row.failed:
        return [row.name, _numbers(*row.paper), "diverged"]
    figures = [row.figure(metric) for metric in METRICS]
    gain = _gain(rows, at)
    halves = _numbers(*((f.high or f.value) - f.value for f in figures))
    return [
        row.name,
        _numbers(*row.paper),
        _numbers(*(f.value for f in figures)),
        halves,
        f"{sum(row.stopped) / len(row.stopped):.0f}",
        " / ".join(f"{f.value:+.3f}" for f in gain),
        _verdict(gain, (0, 0)) if gain else "",
        *(_verdict(figures, pair) for pair in floors.values()),
    ]


def _numbers(*values: float) -> str:
    return " / ".join(f"{value:.3f}" for value in values)


def _json(
    protocol: Protocol, rows: Sequence[Row], floors: Mapping[str, Pair]
) -> dict[str, object]:
    return {
        "protocol": asdict(protocol),
        "references": floors,
        "official": OFFICIAL if protocol.name == "published" else {},
        "rows": [
            {
                **asdict(row),
                "gain": [asdict(f) for f in _gain(rows, at)],
            }
            for at, row in enumerate(rows)
        ],
    }


if __name__ == "__main__":
    main()
