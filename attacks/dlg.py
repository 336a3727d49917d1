"""Search or division: DLG, iDLG and cosine matching beside the closed forms.

FedNCF, one full-batch step, one upload of some users. Unknown are both private vectors
and the label of every item sent. ``DLG`` moves them by L-BFGS until the simulated
gradients equal the real ones (Zhu et al., NeurIPS 2019), from a random start; ``iDLG``
knows the labels from signs first (Zhao et al., 2020); ``cosine`` matches directions by
Adam on the gradient's signs (Geiping et al., NeurIPS 2020). The closed forms are one
division for the vector that the first layer reads, and the sign of each row's first
principal component for the labels. Then FedMF, one step and two uploads, where the
closed forms are those of ``rating_two_rounds`` and ``rating_grid``.

    python attacks/dlg.py

The exit code is 1 where a search is nearer to the truth than the closed form. The data
are MovieLens-100K where it is at hand (``privfed data get ml-100k``), else the
generated demo world.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace

import click
import torch
from at_hand import at_hand
from claims import Claim, table
from inversion import METHOD, Row, row_of, searches, shown
from rich.console import Console
from rich.table import Table
from torch import Tensor

from privfed.adversary import Attack, Prior
from privfed.attacks.items.sign_pc import SignPC
from privfed.attacks.ratings.inversion import Inversion
from privfed.attacks.ratings.one_round import RatingGrid
from privfed.attacks.ratings.two_rounds import RatingTwoRounds
from privfed.attacks.reading import records
from privfed.attacks.reading.descent import Found, adam, lbfgs
from privfed.attacks.reading.simulation import Distance, Mismatch, likely_own
from privfed.attacks.reading.vector_readers import inverted
from privfed.channels.plain import Plain
from privfed.data.cohort import cohort_of
from privfed.data.load import DataSettings, load
from privfed.data.world import World
from privfed.evaluation.protocol import Protocol
from privfed.guesses import Items
from privfed.interfaces import Round, State
from privfed.machine import Machine
from privfed.methods.fedncf import FedNCF
from privfed.rounds import Setup, run
from privfed.seeds import Seeds
from privfed.views import ModelView, UploadsView

SEEDS = Seeds(0)
NETWORK = FedNCF(
    width=64, epochs=1, batch=10**9, learning_rate=0.1, item_rate=0.01, item_std=0.1
)
VECTOR = "user_mlp"


@dataclass(frozen=True)
class Line:
    """What one way recovered of FedNCF's users."""

    way: str
    users: int
    cosine: float  # of the vector that the first layer reads
    error: float  # its relative error, the median user's
    labels: float  # share of the items sent whose label is right
    seconds: float  # of a user


@click.command(help=__doc__)
@click.option("--data", help="Name or path.  [default: ml-100k, else demo]")
@click.option("--users", default=8, show_default=True)
@click.option("--iterations", default=100, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def main(data: str | None, users: int, iterations: int, as_json: bool) -> None:
    """Attack, print two tables, and judge the claims."""
    source = DataSettings(data or at_hand())
    lines = list(_network(load(source, "ranking").world, users, iterations))
    rows = list(_factors(load(source, "rating").world, users, iterations))
    claims = list(_claims(lines, rows))
    if as_json:
        told = [{**asdict(c), "holds": c.holds} for c in claims]
        found = [*map(asdict, lines), *map(asdict, rows)]
        click.echo(json.dumps([*found, *told], indent=2))
    else:
        console = Console()
        console.print(_table(lines), highlight=False)
        console.print(shown(rows), highlight=False)
        console.print(table(claims), highlight=False)
    if not all(one.holds for one in claims):
        raise SystemExit(1)


@dataclass(frozen=True, eq=False)
class Scene:
    """One upload of some users of FedNCF, and what is true of them."""

    prior: Prior
    view: UploadsView
    model: State
    who: records.Victims
    vector: Tensor  # (users, width)
    label: Tensor  # (users, samples)


def _scene(world: World, users: int) -> Scene:
    drawn = SEEDS("users").bits(world.eligible, torch.zeros_like(world.eligible))
    clients = world.eligible[drawn.argsort()[:users]].sort().values
    model, private = NETWORK.init(world.shape, SEEDS("init"))
    now = Round(0, SEEDS("train", 0), SEEDS("once"))
    cohort = cohort_of(world, clients)
    up = NETWORK.train(model, private, cohort, now).uploads
    items = {n: (r.sender, r.item) for n, r in up.rows.items()}
    size = torch.zeros(len(clients), dtype=torch.int64)
    view = UploadsView(round=0, clients=clients, bytes_up=size, items=items, uploads=up)
    prior = Prior(world.shape, SEEDS("attack"), NETWORK, popularity=world.popularity)
    memory = records.received(records.begin(prior), ModelView(round=0, model=model))
    who = records.victims(records.sent(memory, view, users, 1))
    true = torch.zeros(world.shape.clients, world.shape.items, dtype=torch.float64)
    true[world.train.owner, world.train.item] = 1.0
    label = true[who.clients[:, None], who.item]
    return Scene(prior, view, model, who, private[VECTOR][who.clients].double(), label)


def _network(world: World, users: int, iterations: int) -> Iterator[Line]:
    scene = _scene(world, users)
    ways: Mapping[str, Callable[[], tuple[Tensor, Tensor]]] = {
        "closed form": lambda: _closed(scene),
        "DLG (l2, L-BFGS)": lambda: _searched(scene, "l2", iterations, None),
        "iDLG (labels by sign, then l2)": lambda: _searched(
            scene, "l2", iterations, _signs(scene)
        ),
        "cosine, signed Adam": lambda: _searched(scene, "cosine", iterations, None),
    }
    for name, way in ways.items():
        click.echo(name, err=True)
        began = time.process_time()
        vector, label = way()
        seconds = (time.process_time() - began) / len(scene.who.clients)
        yield _line(name, scene, vector, label, seconds)


def _closed(scene: Scene) -> tuple[Tensor, Tensor]:
    [sent], layer = scene.who.uploads, NETWORK.user_layer()
    columns = slice(layer.first, layer.first + layer.width)
    change = sent.shared_moved[layer.weight][:, :, columns]
    vector, _ = inverted(change, sent.shared_moved[layer.bias])
    return vector, _signs(scene)


def _signs(scene: Scene) -> Tensor:
    """Labels by the sign of each row's first principal component."""
    attack: Attack = SignPC()
    ready = attack.prepare(scene.prior)
    memory = ready.start(scene.prior)
    for view in (ModelView(round=0, model=scene.model), scene.view):
        if isinstance(view, attack.sees):
            memory = ready.observe(memory, view)
    found = ready.guess(memory, scene.prior)
    assert isinstance(found, Items)
    mine = torch.searchsorted(found.clients, scene.who.clients)
    return found.chosen[mine[:, None], scene.who.item].double()


def _searched(
    scene: Scene, distance: Distance, iterations: int, known: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Both private vectors and the labels, or the vectors where labels are known."""
    own = {
        name: value.double()
        for name, value in likely_own(scene.prior, scene.who, 1).items()
    }
    mismatch = Mismatch.of(scene.prior, scene.who, own, torch.sigmoid, distance)
    start = torch.full_like(scene.label, -1.4)  # one of five is a positive
    if known is not None:
        fixed = (known * 2 - 1) * 40  # a sigmoid has no slope there
        start = fixed
    point = mismatch.unknown.joined(own, start)
    found: Found
    if distance == "l2":
        found = lbfgs(mismatch, point, iterations, enough=1e-13)
    else:
        found = adam(mismatch, point, 2 * iterations, 0.05, signed=True)
    vectors, logit = mismatch.unknown.parts(found.point)
    return vectors[VECTOR], (logit > 0).double()


def _line(
    way: str, scene: Scene, vector: Tensor, label: Tensor, seconds: float
) -> Line:
    true, real = scene.vector, scene.who.real
    lengths = vector.norm(dim=1) * true.norm(dim=1)
    cosine = (vector * true).sum(1) / lengths.clamp_min(1e-30)
    error = (vector - true).norm(dim=1) / true.norm(dim=1)
    right = ((label == scene.label) & real).sum() / real.sum()
    return Line(
        way,
        len(true),
        float(cosine.mean()),
        float(error.median()),
        float(right),
        seconds,
    )


def _factors(world: World, victims: int, iterations: int) -> Iterator[Row]:
    click.echo("FedMF", err=True)
    strongest = Inversion(victims, tries=1, iterations=3 * iterations)
    attacks: Mapping[str, Attack] = {
        "closed form, 2 uploads": RatingTwoRounds(),
        "grid, 2 uploads": RatingGrid(),
        **searches(strongest),
    }
    setup = Setup(
        world,
        replace(METHOD),
        Plain(),
        attacks=attacks,
        protocol=Protocol(every=2),
        rounds=2,
    )
    outcome = run(setup, Machine(workers=1))
    for name in attacks:
        yield row_of(outcome, world, 1, name)


def _claims(lines: list[Line], rows: list[Row]) -> Iterator[Claim]:
    closed, *searched = lines
    source = "the best of the searches"
    best = min(line.error for line in searched)
    yield Claim(
        "FedNCF, user vector: error", best, closed.error, 0.0, source, "at most"
    )
    right = max(line.labels for line in searched)
    yield Claim("FedNCF, labels", right, closed.labels, 0.005, source, "at least")
    mean = min(row.mean for row in rows[2:])
    yield Claim("FedMF, ratings: error", mean, rows[0].mean, 0.0, source, "at most")


def _table(lines: list[Line]) -> Table:
    cells = Table(box=None, pad_edge=False)
    cells.add_column("FedNCF, one upload")
    for name in ("users", "cosine", "error", "labels right", "s a user"):
        cells.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        cells.add_row(
            line.way,
            str(line.users),
            f"{line.cosine:.4f}",
            f"{line.error:.1e}",
            f"{line.labels:.4f}",
            f"{line.seconds:.3f}",
        )
    return cells


if __name__ == "__main__":
    main()
