"""Cali3F and its baselines: accuracy, fairness, and rounds to near the best.

Every method trains the same number of clients a round with the same local settings:
those of Cali3F's clusters times its delegates. The last interaction in time is the
test item, the one before it validation, which chooses the round whose test figures
are shown. "To 5 %" is Table III's measure: the first round whose test NDCG@10 is
within 5 % of the best that the same run reaches, and what all rounds up to it cost,
in processor seconds of clients and server, evaluation left out.

    python benchmarks/cali3f.py --data ml-100k               # Tables II and III
    python benchmarks/cali3f.py --data ml-100k --clusters-of 1,5,10,30,60  # Figure 4

Zhu et al., Cali3F: Calibrated Fast Fair Federated Recommendation System, 2022.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import click
import torch
from rich.console import Console
from rich.table import Table

from privfed.channels.plain import Plain
from privfed.cli.progress import Line
from privfed.data.load import DataSettings, load
from privfed.data.world import World
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import Invites, Method
from privfed.machine import Machine
from privfed.methods.cali3f import Cali3F
from privfed.methods.ditto import Ditto
from privfed.methods.fedfast import FedFast
from privfed.methods.neural_avg import NeuralAvg
from privfed.metrics import fairness
from privfed.metrics.score import Score
from privfed.rounds import Outcome, Setup, run
from privfed.sampling import Sampling

NEAR = 0.95  # of a run's own best NDCG@10
MLP_RATE = 1 / 3  # the MLP alone falls apart at the rate that suits the others


@dataclass(frozen=True)
class Plan:
    """What all runs have in common."""

    data: str
    rounds: int
    every: int
    clusters: int
    delegates: int
    learning_rate: float
    negatives: int
    calibrate: float
    discount: float
    seed: int


@dataclass(frozen=True)
class Served:
    """How well, and how evenly, clients with a test item are served: by NDCG@10."""

    hr: float
    ndcg: float
    deviation: float
    tenth: float  # 10th percentile
    gini: float

    @classmethod
    def of(cls, scores: Mapping[str, Score]) -> "Served":
        each = scores["ndcg@10"].each
        return cls(
            scores["hr@10"].mean(),
            scores["ndcg@10"].mean(),
            fairness.deviation(each),
            float(torch.quantile(each, 0.1)),
            fairness.gini(each),
        )

    def cells(self) -> list[str]:
        found = (self.hr, self.ndcg, self.deviation, self.tenth, self.gini)
        return [f"{value:.3f}" for value in found]


@dataclass(frozen=True)
class Row:
    """What one run measured."""

    name: str
    clusters: int
    served: Served
    chosen: int  # round, by validation
    near: int  # round within 5 % of the best
    near_seconds: float
    round_seconds: float
    kib_up: float  # of a client in a round
    popularity: Served
    curve: Mapping[int, tuple[float, float]]


def cases(plan: Plan) -> Mapping[str, Method]:
    """The rows of Tables II and III."""
    trained: dict[str, Any] = {"learning_rate": plan.learning_rate}
    grouped = {
        **trained,
        "clusters": plan.clusters,
        "delegates": plan.delegates,
        "discount": plan.discount,
    }
    fair = {**grouped, "calibrate": plan.calibrate}
    slow = {**fair, "learning_rate": plan.learning_rate * MLP_RATE}
    return {
        "FedAvg-NeuMF": NeuralAvg(**trained),
        "FedAvg-NeuMF, own user rows": NeuralAvg(user_rows="own", **trained),
        "FedFast-NeuMF": FedFast(**grouped),
        "Ditto-NeuMF, own user rows": Ditto(user_rows="own", **trained),
        "Cali3F-GMF": Cali3F(kind="gmf", **fair),
        "Cali3F-MLP": Cali3F(kind="mlp", **slow),
        "Cali3F-NeuMF": Cali3F(**fair),
    }


def measure(name: str, method: Method, plan: Plan, world: World) -> Row:
    """One run; whoever does not choose its clients draws as many."""
    drawn = Sampling("uniform", plan.clusters * plan.delegates)
    setup = Setup(
        world,
        method,
        Plain(),
        sampling=Sampling() if isinstance(method, Invites) else drawn,
        protocol=Protocol(negatives=plan.negatives, every=plan.every),
        rounds=plan.rounds,
        seed=plan.seed,
    )
    click.echo(f"{name}, {plan.clusters} clusters", err=True)
    with Line(plan.seed, 1) as told:
        outcome = run(
            setup, Machine(workers=1), None, lambda *seen: told(plan.seed, *seen)
        )
    return row_of(name, plan, outcome)


def row_of(name: str, plan: Plan, outcome: Outcome) -> Row:
    """A run's figures."""
    task = outcome.task
    curve = {
        int(row["round"]): (row["utility.hr@10"], row["utility.ndcg@10"])
        for row in outcome.state.log
        if "utility.ndcg@10" in row
    }
    best = max(ndcg for _, ndcg in curve.values())
    near = min(n for n, (_, ndcg) in curve.items() if ndcg >= NEAR * best)
    costs = outcome.state.costs
    seconds = (costs.client_seconds + costs.server_seconds) / costs.rounds
    return Row(
        name,
        plan.clusters,
        Served.of(task.scores(outcome.state.best_test)),
        outcome.state.best.round,
        near,
        near * seconds,
        seconds,
        costs.bytes_up / costs.uploads / 1024,
        Served.of(task.scores(task.references()["popularity"])),
        curve,
    )


def figure_4(plan: Plan, clusters: Sequence[int], world: World) -> list[Row]:
    """Personalization on and off over the number of clusters, equal clients a round."""
    total = plan.clusters * plan.delegates
    rows = []
    for count in clusters:
        shared: dict[str, Any] = {
            "clusters": count,
            "delegates": max(1, total // count),
            "learning_rate": plan.learning_rate,
            "discount": plan.discount,
        }
        parts = {**asdict(plan), **shared}
        one = Plan(**parts)
        on = Cali3F(calibrate=plan.calibrate, **shared)
        rows.append(measure("on", on, one, world))
        rows.append(measure("off", FedFast(**shared), one, world))
    return rows


@click.command(help=__doc__)
@click.option("--data", default="ml-100k", show_default=True, help="Name or path.")
@click.option("--rounds", default=200, show_default=True)
@click.option("--every", default=5, show_default=True, help="Rounds to a measurement.")
@click.option("--clusters", default=30, show_default=True)
@click.option("--delegates", default=4, show_default=True, help="Of each cluster.")
@click.option("--learning-rate", default=0.05, show_default=True)
@click.option("--calibrate", default=0.1, show_default=True, help="The paper's phi.")
@click.option(
    "--discount", default=1.0, show_default=True, help="Of other clients' first moves."
)
@click.option("--negatives", default=100, show_default=True, help="Of each test item.")
@click.option("--seed", default=0, show_default=True)
@click.option("--only", multiple=True, help="A row by its name; may come again.")
@click.option("--clusters-of", default="", help="Numbers of clusters, as in Figure 4.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def main(only: Sequence[str], clusters_of: str, as_json: bool, **given: Any) -> None:
    """Run every row and print one table."""
    plan = Plan(**given)
    world = load(DataSettings(plan.data, split="leave-one-out", features=())).world
    if clusters_of:
        rows = figure_4(plan, [int(n) for n in clusters_of.split(",")], world)
    else:
        known = cases(plan)
        for name in only:
            if name not in known:
                raise click.BadParameter(f"--only takes one of {', '.join(known)}")
        chosen = only or [*known]
        rows = [measure(name, known[name], plan, world) for name in chosen]
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    Console(width=130).print(table(plan, rows))


def table(plan: Plan, rows: Sequence[Row]) -> Table:
    """All rows, and popularity."""
    title = f"{plan.data}, {plan.negatives} negatives, {plan.rounds} rounds"
    found = Table(title=title, box=None)
    sides: Sequence[tuple[str, Literal["left", "right"]]] = [
        ("method", "left"),
        ("clusters", "right"),
        ("HR@10", "right"),
        ("NDCG@10", "right"),
        ("std", "right"),
        ("10th", "right"),
        ("Gini", "right"),
        ("round", "right"),
        ("to 5 %", "right"),
        ("seconds", "right"),
        ("s/round", "right"),
        ("KiB up", "right"),
    ]
    for name, side in sides:
        found.add_column(name, justify=side, no_wrap=True)
    for row in rows:
        found.add_row(
            row.name,
            str(row.clusters),
            *row.served.cells(),
            *(str(row.chosen), str(row.near), f"{row.near_seconds:.0f}"),
            *(f"{row.round_seconds:.2f}", f"{row.kib_up:.0f}"),
        )
    found.add_row("popularity", "", *rows[0].popularity.cells())
    return found


if __name__ == "__main__":
    main()
