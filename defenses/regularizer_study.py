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
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import pairwise

import click
import torch
from measuring import Bench, measure, tell, world_of
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from privfed.attacks.sign_pc import SignPC
from privfed.attacks.support import Support
from privfed.choices import choose
from privfed.data.world import World
from privfed.interfaces import Attack, Turn
from privfed.messages import Rows, Uploads
from privfed.metrics import leakage
from privfed.seeds import Seeds, Stream
from privfed.views import Guess, Prior, UploadsView

WIDTH, LAYERS, NEGATIVES = 64, (128, 64, 32), 4
EPOCHS, BATCH, RATE = 20, 64, 1e-3  # of the released run.py
TABLE = "items"
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
    seeds = Seeds(seed)
    first = world.eligible[:clients]
    rows = [_attacked(world, first, seeds, *one) for one in CLIENTS]
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


# Clients as IMIA's released code trains them: update.py, model.py, run.py.


@dataclass(frozen=True)
class Attacked:
    """What sign_pc recovered of some clients, means over them."""

    defense: str
    precision: float
    recall: float
    f1: float
    before: float  # F1 of an earlier measurement
    random: float  # F1 of as many candidates at random


def _attacked(
    world: World,
    clients: Tensor,
    seeds: Seeds,
    name: str,
    mu: float,
    spec: str,
    before: float,
) -> Attacked:
    click.echo(name, err=True)
    net, items, users = _first(world, seeds("init"))
    sent = [
        _trained(world, int(c), net, items, users[k], mu, seeds("train"))
        for k, c in enumerate(clients.tolist())
    ]
    sender = torch.cat(
        [torch.full((len(rows),), k) for k, (rows, _) in enumerate(sent)]
    )
    item = torch.cat([rows for rows, _ in sent])
    rows = Rows(sender, item, torch.cat([change for _, change in sent]))
    uploads = Uploads(clients, {TABLE: rows}, scale={TABLE: RATE})
    if spec:
        turn = Turn(0, world.shape, seeds("upload"))
        uploads = choose("defense", spec).part.on_upload(uploads, turn)
    guess = _read(world, uploads, seeds)
    found = leakage.score(guess, world.train)
    candidates = torch.bincount(sender).double()
    positives = world.train.counts[clients].double()
    random = 2 * positives / candidates * 0.2 / (positives / candidates + 0.2)
    return Attacked(
        name,
        float(found["precision"].mean()),
        float(found["recall"].mean()),
        float(found["f1"].mean()),
        before,
        float(random.mean()),
    )


def _read(world: World, uploads: Uploads, seeds: Seeds) -> Guess:
    attack, shape = SignPC(), world.shape
    prior = Prior(shape.clients, shape.items, seeds("attack"), NEGATIVES)
    rows = uploads.rows[TABLE]
    view = UploadsView(
        round=0,
        clients=uploads.clients,
        bytes_up=uploads.bytes_up(shape),
        items={TABLE: (rows.sender, rows.item)},
        uploads=uploads,
    )
    return attack.guess(attack.observe(attack.start(prior), view), prior)


def _first(world: World, stream: Stream) -> tuple[nn.Sequential, Tensor, Tensor]:
    """The first network, item table and user table, as torch's defaults draw them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream.key & (2**63 - 1))
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(LAYERS):
            layers += [nn.Linear(wide, narrow), nn.ReLU()]
        net = nn.Sequential(*layers, nn.Linear(LAYERS[-1], 1))
        items = torch.randn(world.shape.items, WIDTH)
        users = torch.randn(world.shape.clients, WIDTH)
    return net, items, users


def _trained(
    world: World,
    client: int,
    first: nn.Sequential,
    items: Tensor,
    user: Tensor,
    mu: float,
    stream: Stream,
) -> tuple[Tensor, Tensor]:
    """A client's touched items, and by how much their rows moved.

    Rows that no sample touches get no gradient, so Adam leaves them alone.
    """
    item, label, rng = _samples(world, client, stream)
    touched, slot = torch.unique(item, return_inverse=True)
    start = items[touched]
    rows, own = start.clone().requires_grad_(), user.clone().requires_grad_()
    net = deepcopy(first)
    adam = torch.optim.Adam([rows, own, *net.parameters()], lr=RATE)
    for _ in range(EPOCHS):
        for at in torch.split(torch.randperm(len(item), generator=rng), BATCH):
            both = torch.cat([own.expand(len(at), -1), rows[slot[at]]], 1)
            loss = binary_cross_entropy_with_logits(net(both)[:, 0], label[at])
            loss = loss + mu * ((rows - start) ** 2).sum()
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
    return touched, (rows - start).detach()


def _samples(
    world: World, client: int, stream: Stream
) -> tuple[Tensor, Tensor, torch.Generator]:
    """Each training item and its negatives: four for each, distinct among them."""
    rng = stream.of("client", client).generator()
    mine = world.train.of(torch.tensor([client])).item
    free = torch.ones(world.shape.items)
    free[mine] = 0.0
    drawn = torch.multinomial(free.expand(len(mine), -1), NEGATIVES, generator=rng)
    item = torch.cat([mine[:, None], drawn], 1).flatten()
    label = torch.zeros(len(mine), 1 + NEGATIVES)
    label[:, 0] = 1.0
    return item, label.flatten(), rng


if __name__ == "__main__":
    main()
