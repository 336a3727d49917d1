"""What terms added to the local loss protect, and what they cost.

    python defenses/regularizer_study.py imia --data ml-100k
    python defenses/regularizer_study.py federated --data ml-100k
    python defenses/regularizer_study.py regula --data ml-100k

``imia``: clients as IMIA (Yuan et al., WWW 2023) trains them, 20 epochs of Adam on an
MLP, defended as it defends them, and read by sign_pc from one upload. Reference figures
are an earlier measurement of the same setting on ML-100K. ``federated``: the same
defenses over whole runs of fedncf, by SGD. ``regula``: what Regula costs without an
attack.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from measuring import Bench, measure, tell, world_of
from rich.console import Console
from rich.table import Table
from torch import Tensor

from privfed.adversary import Attack
from privfed.attacks.items.sign_pc import SignPC
from privfed.attacks.items.support import Support
from privfed.data.world import World
from privfed.metrics.leakage import items
from privfed.seeds import Seeds

# mu of the regularizer, defense of the upload, sign_pc's F1 as it was measured before
CLIENTS: Sequence[tuple[str, float, str, float]] = (
    ("none", 0.0, "", 1.000),
    ("imia_ldp:variance=0.001", 0.0, "imia_ldp:variance=0.001", 1.000),
    ("imia_ldp:variance=0.01", 0.0, "imia_ldp:variance=0.01", 0.941),
    ("regularizer mu=0.1", 0.1, "", 0.565),
    ("regularizer mu=1", 1.0, "", 0.395),
)
FEDERATED: Sequence[str] = (
    "none",
    "imia_ldp:variance=0.001",
    "imia_ldp:variance=0.01",
    "imia_regularizer:mu=0.00001",
    "imia_regularizer:mu=0.0001",
    "imia_regularizer:mu=0.001",
    "imia_regularizer:mu=0.1",
)
REGULA: Mapping[str, Sequence[str]] = {
    "bpr": (
        "none",
        "regula",
        "regula:item_weight=10,user_weight=10",
        "regula:item_weight=100,user_weight=0",
        "regula:item_weight=0,user_weight=100",
    ),
    "fcf": ("none", "regula", "regula:user_weight=0", "regula:item_weight=0"),
}
COLUMNS = {
    "utility.hr@10": "HR@10",
    "utility.ndcg@10": "NDCG@10",
    "leakage.sign_pc.precision": "sign_pc\nprec.",
    "leakage.sign_pc.f1": "sign_pc\nF1",
    "leakage.sign_pc.auc": "sign_pc\nAUC",
    "cost.client_seconds": "device\ntime",
}


@click.group(help=__doc__)
def main() -> None:
    """One command for each table."""


@main.command()
@click.option("--data", default="ml-100k", show_default=True)
@click.option("--clients", default=20, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def imia(data: str, clients: int, seed: int, as_json: bool) -> None:
    """The first clients, trained as IMIA trains them, one upload each."""
    world = world_of(data, "ranking")
    first = world.eligible[:clients]
    rows = [_attacked(world, first, seed, one) for one in CLIENTS]
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("defense", "precision", "recall", "F1", "F1 before", "random F1"):
        table.add_column(heading, justify="left" if heading == "defense" else "right")
    for row in rows:
        figures = (row.precision, row.recall, row.f1, row.before, row.random)
        table.add_row(row.defense, *(f"{value:.3f}" for value in figures))
    console = Console()
    console.print(
        f"sign_pc on the first {clients} clients of {data}, one upload each\n"
    )
    console.print(table)


@main.command()
@click.option("--data", default="ml-100k", show_default=True)
@click.option("--method", default="fedncf", show_default=True, help="Any spec.")
@click.option("--rounds", default=20, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def federated(data: str, method: str, rounds: int, workers: int, as_json: bool) -> None:
    """The same defenses over whole runs."""
    attacks: Mapping[str, Attack] = {"sign_pc": SignPC(), "support": Support()}
    bench = Bench(method, data, rounds, attacks, COLUMNS, workers=workers)
    rows = [measure(bench, one, *_chain(one)) for one in FEDERATED]
    tell({f"{method} on {data}, {rounds} rounds": (bench, rows)}, as_json)


@main.command()
@click.option("--data", default="ml-100k", show_default=True)
@click.option("--rounds", default=40, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def regula(data: str, rounds: int, workers: int, as_json: bool) -> None:
    """What Regula costs where nobody attacks."""
    attacks: Mapping[str, Attack] = {"sign_pc": SignPC()}
    tables = {}
    for method, defenses in REGULA.items():
        bench = Bench(method, data, rounds, attacks, COLUMNS, workers=workers)
        rows = [measure(bench, one, *_chain(one)) for one in defenses]
        tables[f"{method} on {data}, {rounds} rounds, no attack"] = (bench, rows)
    tell(tables, as_json)


def _chain(defense: str) -> Sequence[str]:
    return () if defense == "none" else (defense,)


@dataclass(frozen=True)
class Attacked:
    """What sign_pc recovered of some clients, means over them."""

    defense: str
    precision: float
    recall: float
    f1: float
    before: float  # F1 of an earlier measurement
    random: float  # F1 of a fifth of the candidates at random


def _attacked(
    world: World, clients: Tensor, seed: int, case: tuple[str, float, str, float]
) -> Attacked:
    """Clients as attacks/imia.py trains them."""
    sys.path.append(str(Path(__file__).parent.parent / "attacks"))
    import imia_attacked  # type: ignore[import-not-found]
    import imia_clients  # type: ignore[import-not-found]

    name, mu, spec, before = case
    click.echo(name, err=True)
    bench = imia_attacked.Bench(world, clients, Seeds(seed))
    model = imia_clients.first(world, bench.seeds("init"))
    sent = imia_clients.uploads(world, model, clients, bench.seeds, mu, spec)
    found = items.score(imia_attacked.sign_pc(bench, model, sent), world.train)
    precision, recall, f1 = (
        float(found[key].mean()) for key in ("precision", "recall", "f1")
    )
    random = float(imia_attacked.chance(bench, sent, 0.2)[1].mean())
    return Attacked(name, precision, recall, f1, before, random)


if __name__ == "__main__":
    main()
