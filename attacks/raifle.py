"""RAIFLE in its own setting: what optimization recovers, beside a sign.

FedNCF, width 64, four negatives a positive, 20 local full-batch steps of Adam at 1e-3:
one upload of some users, attacked by ``raifle`` (which repeats those steps and moves
labels and user vector until uploads agree), by ``sign_pc`` (one principal component)
and by ``support`` (every item that was sent). Defenses are those of its paper's grid:
noise on the rows that were sent, clipped to .1 for each user, delta 1e-8, and IMIA's
regularizer of strength 0 or 1. Noise on touched rows alone is no differential privacy:
the items are in the clear.

    python attacks/raifle.py

Its paper's figures were not readable to us and its artifact stores none, so that there
is no claim to judge: the table says what comes out here. AUC is among the items that a
user sent. The paper's active server, which chooses item features so that an upload
tells more, is no part of this: privfed's servers are honest but curious. The data are
MovieLens-100K where it is at hand (``privfed data get ml-100k``), else the generated
demo world.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from math import inf, log, sqrt

import click
import torch
from at_hand import at_hand
from rich.console import Console
from rich.table import Table
from torch import Tensor

from privfed.adversary import Attack, Prior
from privfed.attacks.items.raifle import Raifle
from privfed.attacks.items.sign_pc import SignPC
from privfed.attacks.items.support import Support
from privfed.data.cohort import cohort_of
from privfed.data.load import DataSettings, load
from privfed.data.world import Shape, World
from privfed.devices.batches import collect
from privfed.devices.recipe import Recipe, Values
from privfed.guesses import Items
from privfed.messages import Rows, Uploads
from privfed.methods.fedncf import FedNCF
from privfed.replay import replay
from privfed.seeds import Seeds
from privfed.views import ModelView, UploadsView

SEEDS = Seeds(0)
RATE, STEPS, CLIP, DELTA = 1e-3, 20, 0.1, 1e-8
EPSILONS = (inf, 500.0, 100.0, 20.0, 1.0)


@dataclass(frozen=True)
class Published(FedNCF):
    """FedNCF as RAIFLE trains it; ``mu`` is IMIA's regularizer."""

    mu: float = 0.0

    def recipe(self, shape: Shape, round: int) -> Recipe:
        plain = super().recipe(shape, round)

        def penalty(rows: Values, held: Values, _: Values, real: Tensor) -> Tensor:
            moved = torch.cat([rows[name] - held[name] for name in rows], 2)
            return self.mu * (moved.square().sum(2) * (real > 0)).sum(1)

        phases = [dict.fromkeys(plain.phases[0], RATE)]
        return replace(
            plain,
            phases=phases,
            steps=STEPS,
            optimizer="adam",
            penalty=penalty if self.mu else None,
            batch=None,
        )


@dataclass(frozen=True)
class Row:
    """What one attack recovered under one defense."""

    epsilon: float
    mu: float
    attack: str
    users: int
    auc: float
    f1: float
    seconds: float  # of a user


@click.command(help=__doc__)
@click.option("--data", help="Name or path.  [default: ml-100k, else demo]")
@click.option("--users", default=30, show_default=True)
@click.option("--iterations", default=50, show_default=True)
@click.option(
    "--epsilon",
    "epsilons",
    multiple=True,
    type=float,
    default=EPSILONS,
    show_default=True,
)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def main(
    data: str | None,
    users: int,
    iterations: int,
    epsilons: tuple[float, ...],
    as_json: bool,
) -> None:
    """Attack under every defense and print one table."""
    world = load(DataSettings(data or at_hand()), "ranking").world
    grid = [(inf, 1.0), *((epsilon, 0.0) for epsilon in epsilons)]
    rows = []
    for epsilon, mu in grid:
        for row in _measured(world, users, iterations, epsilon, mu):
            click.echo(f"{row}", err=True)
            rows.append(row)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    Console().print(_table(rows), highlight=False)


def _measured(
    world: World, users: int, iterations: int, epsilon: float, mu: float
) -> Iterator[Row]:
    method = Published(mu=mu)
    drawn = SEEDS("users").bits(world.eligible, torch.zeros_like(world.eligible))
    clients = world.eligible[drawn.argsort()[:users]].sort().values
    model, private = method.init(world.shape, SEEDS("init"))
    uploads = _uploads(world, method, clients, model, private)
    if epsilon < inf:
        uploads = _noised(uploads, epsilon)
    size = torch.zeros(len(clients), dtype=torch.int64)
    items = {n: (r.sender, r.item) for n, r in uploads.rows.items()}
    views = (
        ModelView(round=0, model=model),
        UploadsView(
            round=0, clients=clients, bytes_up=size, items=items, uploads=uploads
        ),
    )
    prior = Prior(world.shape, SEEDS("attack"), method, popularity=world.popularity)
    # Clipping scales an upload by a factor that is not sent: compare directions.
    distance = "l2" if epsilon == inf else "cosine"
    attacks: Mapping[str, Attack] = {
        "raifle": Raifle(users, 1, iterations, distance),  # type: ignore[arg-type]
        "sign_pc": SignPC(),
        "support": Support(),
    }
    for name, attack in attacks.items():
        began = time.process_time()
        ready = attack.prepare(prior)
        memory = ready.start(prior)
        for view in views:
            if isinstance(view, attack.sees):
                memory = ready.observe(memory, view)
        found = ready.guess(memory, prior)
        assert isinstance(found, Items)
        seconds = (time.process_time() - began) / len(clients)
        auc, f1 = _scored(found, world, items["items_mf"], clients)
        yield Row(epsilon, mu, name, len(clients), auc, f1, seconds)


def _uploads(
    world: World, method: Published, clients: Tensor, model: Values, private: Values
) -> Uploads:
    """What the users send, by the recipe with their true samples."""
    cohort = cohort_of(world, clients)
    samples = collect(cohort, method.sampling(), SEEDS("negatives"))
    batch = samples.full()
    recipe = method.recipe(world.shape, 0)
    own = {name: private[name][clients] for name in recipe.own}
    made = replay(recipe, model, own, samples.item, batch.target, batch.weight)
    sender, _ = at = samples.rows.nonzero(as_tuple=True)
    rows = {n: Rows(sender, samples.item[at], v[at]) for n, v in made.rows.items()}
    return Uploads(clients, rows, made.shared)


def _noised(uploads: Uploads, epsilon: float) -> Uploads:
    """Rows clipped by user and noised, as the paper does it; nothing else is sent."""
    sigma = CLIP * sqrt(2 * log(1.25 / DELTA)) / epsilon
    rng = SEEDS("noise").generator()
    energy = torch.zeros(len(uploads.clients))
    for table in uploads.rows.values():
        energy.index_add_(0, table.sender, table.value.square().sum(1))
    factor = (CLIP / energy.sqrt().clamp_min(1e-30)).clamp_max(1.0)

    def noised(table: Rows) -> Rows:
        cut = table.value * factor[table.sender, None]
        drawn = torch.randn(cut.shape, generator=rng)
        return replace(table, value=cut + sigma * drawn)

    return replace(uploads, rows={n: noised(t) for n, t in uploads.rows.items()})


def _scored(
    found: Items, world: World, sent: tuple[Tensor, Tensor], clients: Tensor
) -> tuple[float, float]:
    """Mean AUC among the items sent, and mean F1 of what was claimed."""
    true = torch.zeros(world.shape.clients, world.shape.items, dtype=torch.bool)
    true[world.train.owner, world.train.item] = True
    true = true[found.clients]
    hits = (true & found.chosen).sum(1).double()
    f1 = 2 * hits / (true.sum(1) + found.chosen.sum(1)).clamp_min(1)
    areas = []
    for k, client in enumerate(found.clients.tolist()):
        item = sent[1][clients[sent[0]] == client]
        score, mine = found.score[k, item], true[k, item]
        gap = score[mine][:, None] - score[~mine]
        areas.append(((gap > 0).double() + (gap == 0).double() / 2).mean())
    return float(torch.stack(areas).mean()), float(f1.mean())


def _table(rows: list[Row]) -> Table:
    shown = Table(box=None, pad_edge=False)
    for name in ("epsilon", "regularizer", "attack"):
        shown.add_column(name)
    for name in ("users", "AUC", "F1", "s a user"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        shown.add_row(
            f"{row.epsilon:g}",
            f"{row.mu:g}",
            row.attack,
            str(row.users),
            f"{row.auc:.3f}",
            f"{row.f1:.3f}",
            f"{row.seconds:.2f}",
        )
    return shown


if __name__ == "__main__":
    main()
