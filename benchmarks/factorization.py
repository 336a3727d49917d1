"""Federated matrix factorization beside its published figures.

    python benchmarks/factorization.py fedrec --data ml-100k
    python benchmarks/factorization.py fedmf --data ml-latest-small
    python benchmarks/factorization.py bpr --data fedrecattack/ml-100k
    python benchmarks/factorization.py ranking --data ml-100k

``fedrec``: virtual ratings of three kinds against the authors' result files.
``fedmf``: the released example of ten users, to the last digit of its log.
``bpr``: 200 epochs of 256 clients a round on FedRecAttack's own split (its folder
``ml-100k``), against a plain reimplementation of its code. ``ranking``: FCF of 2019
and BPR beside popularity; ``centralized.py`` has what libraries reach.
"""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import click
import torch
from rich.console import Console
from rich.table import Table

from privfed.channels.plain import Plain
from privfed.data.load import DataSettings, interactions, load, locate
from privfed.data.splits import by_ratio
from privfed.data.world import Ragged, Shape, World, ragged
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import Method
from privfed.machine import Machine
from privfed.methods.bpr import BPR
from privfed.methods.fcf_original import FCFOriginal
from privfed.methods.fedmf import FedMF
from privfed.methods.fedrec import FedRec
from privfed.metrics.intervals import over_seeds
from privfed.rounds import Outcome, Setup, run
from privfed.sampling import Sampling

PARTS = ("fedrec", "fedmf", "bpr", "ranking")
_MEAN = FedRec(fill="mean")
_HYBRID = FedRec(fill="hybrid")
# MAE and RMSE after 100 iterations, means of five splits, from the authors' result
# files: ML-100K, ML-1M. They changed predict_after and local_steps with rho and data.
FEDREC: Sequence[tuple[str, FedRec, Mapping[str, tuple[float, float]]]] = (
    (
        "no virtual ratings",
        replace(_MEAN, virtual=0),
        {"ml-100k": (0.7418, 0.9424), "ml-1m": (0.7193, 0.9106)},
    ),
    (
        "mean rho 1",
        _MEAN,
        {"ml-100k": (0.7670, 0.9710), "ml-1m": (0.7506, 0.9494)},
    ),
    (
        "mean rho 2",
        replace(_MEAN, virtual=2),
        {"ml-100k": (0.7787, 0.9843), "ml-1m": (0.7643, 0.9662)},
    ),
    (
        "mean rho 3",
        replace(_MEAN, virtual=3),
        {"ml-100k": (0.7857, 0.9920), "ml-1m": (0.7724, 0.9757)},
    ),
    (
        "hybrid rho 1",
        _HYBRID,
        {"ml-100k": (0.7440, 0.9432)},
    ),
    (
        "hybrid rho 3",
        replace(_HYBRID, virtual=3, predict_after=5, local_steps=15),
        {"ml-100k": (0.7447, 0.9431)},
    ),
    ("FedRec++ rho 1", replace(_MEAN, denoise=True), {}),
)
FEDMF_LOG = 1.3965372  # RMSE at the end of the released log
BPR_CODE = 0.5795  # HR@10 of a plain reimplementation, mean of two seeds


@dataclass(frozen=True)
class Row:
    """A method's test figures by metric, a value for each seed."""

    name: str
    values: Mapping[str, Sequence[float]]
    published: Mapping[str, float]


@click.command(help=__doc__)
@click.argument("part", type=click.Choice(PARTS))
@click.option("--data", default="ml-100k", show_default=True, help="Name or path.")
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--rounds", default=0, help="0: as many as the part needs.")
@click.option("--only", default="", help="Comma-separated parts of rows' names.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def main(
    part: str, data: str, seeds: int, rounds: int, only: str, as_json: bool
) -> None:
    """Run one part and print its table."""
    rows = list(_chosen(part, data, seeds, rounds, only))
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    Console(width=110).print(_table(f"{part}, {data}", rows))


def _chosen(part: str, data: str, seeds: int, rounds: int, only: str) -> Iterator[Row]:
    def wanted(name: str) -> bool:
        return not only or any(word in name for word in only.split(","))

    if part == "fedrec":
        yield from _fedrec(data, seeds, rounds or 60, wanted)
    elif part == "fedmf":
        yield _fedmf_log(data, rounds or 175)
    elif part == "bpr":
        yield _bpr(data, seeds, rounds or 737)  # 200 epochs of 943 clients
    else:
        yield from _ranking(data, seeds, rounds or 40, wanted)


def _fedrec(
    data: str, seeds: int, rounds: int, wanted: Callable[[str], bool]
) -> Iterator[Row]:
    """80 % of each user's ratings train and 20 % test, as the authors' five splits."""
    whole = interactions(DataSettings(data, features=()))
    worlds = [
        by_ratio(whole, seed, (0.8, 0.0, 0.2), task="rating") for seed in range(seeds)
    ]
    told: dict[str, list[Mapping[str, float]]] = {}
    for name, method, published in FEDREC:
        if not wanted(name):
            continue
        found = []
        for seed, world in enumerate(worlds):
            outcome = _run(
                name, Setup(world, method, Plain(), rounds=rounds, seed=seed)
            )
            found.append(_last(outcome, ("mae", "rmse")))
            told.setdefault("user mean", []).append(_floor(outcome, "user mean"))
            told.setdefault("item mean", []).append(_floor(outcome, "item mean"))
        paper = dict(zip(("mae", "rmse"), published.get(data, ()), strict=False))
        yield Row(name, _by_metric(found), paper)
    for name, floors in told.items():
        yield Row(name, _by_metric(floors[:seeds]), {})


def _fedmf_log(data: str, rounds: int) -> Row:
    """Ten users and the forty items rated most; each user's last three ratings test.

    Everything is as in the released code, and nothing is drawn.
    """
    setup = Setup(ten_users(data), FedMF(), Plain(), rounds=rounds)
    found = _last(_run("FedMF", setup), ("rmse",))
    return Row("FedMF, released example", _by_metric([found]), {"rmse": FEDMF_LOG})


def ten_users(data: str) -> World:
    with (locate(data) / "ratings.csv").open(newline="") as file:
        rated = [
            (
                int(r["userId"]),
                int(r["movieId"]),
                float(r["rating"]),
                int(r["timestamp"]),
            )
            for r in csv.DictReader(file)
        ]
    popular = [item for item, _ in Counter(r[1] for r in rated).most_common(40)]
    users = sorted({r[0] for r in rated})[:10]
    kept = [r for r in rated if r[0] in users and r[1] in popular]
    lists = [sorted((r for r in kept if r[0] == u), key=lambda r: r[3]) for u in users]
    lists = [one for one in lists if len(one) >= 5]

    def part(of: slice) -> Ragged:
        rows = [
            (u, popular.index(r[1]), r[2]) for u, x in enumerate(lists) for r in x[of]
        ]
        owner, item, label = (
            torch.tensor(column) for column in zip(*rows, strict=True)
        )
        return ragged(len(lists), owner, item, label)

    train, test = part(slice(None, -3)), part(slice(-3, None))
    none = ragged(len(lists), *(torch.zeros(0).long(),) * 2, torch.zeros(0))
    shape = Shape(len(lists), len(popular))
    return World("ten users", shape, train, none, test, task="rating")


def _bpr(data: str, seeds: int, rounds: int) -> Row:
    world = load(DataSettings(data, features=())).world
    found = []
    for seed in range(seeds):
        setup = Setup(
            world,
            BPR(),
            Plain(),
            sampling=Sampling("queue", clients_per_round=256),
            protocol=Protocol(at=(10,), every=rounds),
            rounds=rounds,
            seed=seed,
        )
        found.append(_last(_run("BPR", setup), ("hr@10", "ndcg@10")))
    known = {"hr@10": BPR_CODE} if rounds == 737 else {}
    return Row(f"BPR, {rounds} rounds", _by_metric(found), known)


def _ranking(
    data: str, seeds: int, rounds: int, wanted: Callable[[str], bool]
) -> Iterator[Row]:
    world = load(DataSettings(data, features=())).world
    methods: Mapping[str, tuple[Method, int]] = {
        "FCF of 2019": (FCFOriginal(), rounds),
        "FCF of 2019 alpha 3": (FCFOriginal(confidence=3.0), rounds),
        "BPR as published": (BPR(), 5 * rounds),
        "BPR rate 0.03": (BPR(learning_rate=0.03), rounds),
    }
    metrics = ("hr@10", "ndcg@10")
    floors = []
    for name, (method, most) in methods.items():
        if not wanted(name):
            continue
        found = []
        for seed in range(seeds):
            protocol = Protocol(at=(10,), every=5)
            setup = Setup(
                world, method, Plain(), protocol=protocol, rounds=most, seed=seed
            )
            outcome = _run(name, setup)
            found.append(_best(outcome, metrics))
            floors.append(_floor(outcome, "popularity"))
        yield Row(f"{name}, {most} rounds", _by_metric(found), {})
    yield Row("popularity", _by_metric(floors[:seeds]), {})


def _run(name: str, setup: Setup) -> Outcome:
    click.echo(f"{name}, seed {setup.seed}", err=True)
    return run(setup, Machine(workers=1))


def _last(outcome: Outcome, metrics: Sequence[str]) -> Mapping[str, float]:
    """Test figures after the last round, whatever validation chose."""
    row = outcome.state.log[-1]
    return {name: row[f"utility.{name}"] for name in metrics}


def _best(outcome: Outcome, metrics: Sequence[str]) -> Mapping[str, float]:
    """Test figures of the round that validation chose."""
    found = outcome.task.scores(outcome.state.best_test)
    return {name: found[name].mean() for name in metrics}


def _floor(outcome: Outcome, name: str) -> Mapping[str, float]:
    found = outcome.task.scores(outcome.task.references()[name])
    return {metric: score.mean() for metric, score in found.items() if metric != "mse"}


def _by_metric(found: Sequence[Mapping[str, float]]) -> Mapping[str, Sequence[float]]:
    return {name: [one[name] for one in found] for name in found[0]}


def _table(title: str, rows: Sequence[Row]) -> Table:
    table = Table(title=title, box=None, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for name in rows[0].values:
        for column in (f"{name} published", name, "+/-"):
            table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        cells = [x for name in rows[0].values for x in _cells(row, name)]
        table.add_row(row.name, *cells)
    return table


def _cells(row: Row, name: str) -> tuple[str, str, str]:
    """Published, measured, and half of the interval over seeds."""
    values = row.values[name]
    mean = sum(values) / len(values)
    half = f"{over_seeds(values)[1] - mean:.4f}" if len(values) > 1 else ""
    published = row.published.get(name)
    return "" if published is None else f"{published:.4f}", f"{mean:.4f}", half


if __name__ == "__main__":
    main()
