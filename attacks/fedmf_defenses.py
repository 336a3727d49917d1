"""What local training, clipping and noise leave of FedMF's ratings to two attacks.

FedMF is trained on MovieLens-100K, all ratings, for 150 rounds of one full-batch step.
Then every client trains and uploads twice more in each of the ways below, and
``rating_two_rounds`` reads both uploads, ``rating_grid`` the first. Noise is on the
gradient, in units of the median length of its rows. Adam's steps hide how large an
error is, so that both attacks refuse them; the signs of the errors are still there.

    python attacks/fedmf_defenses.py
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click
import torch
from claims import Claim, tell
from rich.console import Console
from rich.table import Table
from sfmf import SEEDS, claimed
from torch import Tensor

from privfed.adversary import Attack, Prior
from privfed.attacks.ratings.one_round import RatingGrid
from privfed.attacks.ratings.two_rounds import RatingTwoRounds
from privfed.attacks.reading import rank_one
from privfed.channels.plain import Plain
from privfed.data.cohort import Cohort, cohort_of
from privfed.data.load import DataSettings, interactions
from privfed.data.splits import by_ratio
from privfed.data.world import World
from privfed.defenses.clipping import squared
from privfed.defenses.gaussian import Gaussian
from privfed.interfaces import Defense, Opening, Round, State, Turn
from privfed.messages import Uploads
from privfed.methods.factors import ITEMS, USERS, products
from privfed.methods.fedmf import FedMF
from privfed.metrics.leakage.judged import Judged, Truth
from privfed.metrics.leakage.ratings import judge
from privfed.views import ServerView, UploadsView, View

BASE = FedMF(
    width=64,
    learning_rate=3e-4,
    steps="all",
    reads="old",
    start=0.23,
    start_spread=0.1,
)
EARLIER = "an earlier measurement"
ATTACKS: Mapping[str, Attack] = {
    "two uploads": RatingTwoRounds(),
    "one upload, grid": RatingGrid(),
}
NOISE = (0.1, 1.0, 10.0)


@dataclass(frozen=True)
class Way:
    """A way to train and to defend an upload."""

    name: str
    training: Mapping[str, Any]  # settings of FedMF
    clip: float = 0.0  # norm of an upload, of the median one's
    noise: float = 0.0  # deviation of a number, of the median row's length
    rows: str = "touched"


def _steps(count: int) -> str:
    return f"{count} local step{'s' if count > 1 else ''}"


WAYS = (
    *(Way(_steps(k), {"local_steps": k}) for k in (1, 2, 5, 10)),
    *(
        Way(f"Adam, {_steps(k)}", {"optimizer": "adam", "local_steps": k})
        for k in (1, 5)
    ),
    Way("upload clipped to half the median norm", {}, clip=0.5),
    *(
        Way(f"noise {noise:g} on {words}", {}, noise=noise, rows=rows)
        for rows, words in (("touched", "the rows sent"), ("all", "all rows"))
        for noise in NOISE
    ),
)


@dataclass(frozen=True)
class Row:
    """What was recovered of uploads that were made in one way."""

    way: str
    attack: str
    scores: Mapping[str, float]
    signs: float  # share of errors whose sign the rows tell


@click.command(help=__doc__)
@click.option("--data", default="ml-100k", show_default=True)
@click.option("--rounds", default=150, show_default=True, help="Before the attacks.")
@click.option("--json", "as_json", is_flag=True, help="Print the claims as JSON.")
def main(data: str, rounds: int, as_json: bool) -> None:
    """Train, upload in every way, attack, and compare with what was claimed."""
    every = interactions(DataSettings(data=data))
    world = by_ratio(every, 0, (1.0, 0.0, 0.0), "rating")
    state = _trained(world, rounds)
    rows: list[Row] = []
    for way in WAYS:
        click.echo(way.name, err=True)
        rows += measured(way, world, *state, rounds)
    if not as_json:
        Console(width=110).print(_table(rows), highlight=False)
    tell(_claims(rows), as_json)


def _trained(world: World, rounds: int) -> tuple[State, State]:
    model, private = BASE.init(world.shape, SEEDS("init"))
    cohort = cohort_of(world, world.eligible)
    for number in range(rounds):
        model, private, _ = _round(BASE, model, private, cohort, number)
    if not bool(model[ITEMS].isfinite().all()):
        raise click.ClickException("training diverged")
    return model, private


def _round(
    method: FedMF, model: State, private: State, cohort: Cohort, number: int
) -> tuple[State, State, Uploads]:
    """Model and user vectors after a round, and its uploads."""
    now = Round(number, SEEDS("train", number), SEEDS("once"))
    trained = method.train(model, private, cohort, now)
    channel, shape, clients = Plain(), cohort.shape, cohort.clients
    opened = channel.open(Opening(number, shape, clients, SEEDS("channel", number)))
    opened, _ = channel.send(opened, trained.uploads)
    model = method.apply(model, channel.close(opened).total)
    after = private[USERS].index_copy(0, clients, trained.private[USERS])
    return model, {USERS: after}, trained.uploads


def measured(
    way: Way, world: World, model: State, private: State, number: int
) -> Iterator[Row]:
    """What each attack recovers."""
    method = replace(BASE, **way.training)
    cohort = cohort_of(world, world.eligible)
    pairs = world.train.of(cohort.clients)
    error = pairs.label - products(model, private, cohort, pairs)
    views: list[View] = []
    defenses: Sequence[Defense] = ()
    for n in (number, number + 1):
        held = model
        model, private, up = _round(method, model, private, cohort, n)
        defenses = _defenses(way, up)
        for defense in defenses:
            up = defense.on_upload(up, Turn(n, world.shape, SEEDS("upload", n)))
        views += [ServerView(round=n, model=held), _view(up, n)]
    told = _signs(method, views[0], views[1], world, error)
    for name, attack in ATTACKS.items():
        seen = views if name == "two uploads" else views[:2]
        if attack.misfit(method):
            yield Row(way.name, name, {}, told)
            continue
        prior = Prior(world.shape, SEEDS("attack"), method, defenses)
        judged = _judged(attack, prior, seen, world)
        yield Row(way.name, name, _means(judged), told)


def _defenses(way: Way, up: Uploads) -> Sequence[Defense]:
    if way.clip:
        norm = squared(up, {ITEMS: up.scale[ITEMS]})[ITEMS].sqrt().median()
        clip = way.clip * float(norm)
        return [Gaussian(variance=0.0, clip=clip, per="upload")]
    if way.noise:
        rows = (up.rows[ITEMS].value / up.scale[ITEMS]).norm(dim=1)
        spread = way.noise * float(rows.median())
        return [Gaussian(variance=spread**2, rows=way.rows)]  # type: ignore[arg-type]
    return ()


def _view(up: Uploads, number: int) -> UploadsView:
    return UploadsView(
        round=number,
        clients=up.clients,
        bytes_up=torch.zeros(len(up.clients), dtype=torch.int64),
        items={name: (rows.sender, rows.item) for name, rows in up.rows.items()},
        uploads=up,
    )


def _signs(method: FedMF, held: View, view: View, world: World, error: Tensor) -> float:
    """Share of errors whose sign follows from the axis, up to one flip a client."""
    assert isinstance(held, ServerView)
    assert isinstance(view, UploadsView)
    up, how = view.uploads, method.pass_(0)
    table = held.model[ITEMS]
    told = rank_one.read(
        up.rows[ITEMS], len(up.clients), table, how, up.scale[ITEMS], 3.0
    )
    train = world.train.of(world.eligible)
    real = torch.zeros(len(up.clients), world.shape.items, dtype=torch.float64)
    real[train.sender, train.item] = error.double().sign()
    same = told.along.sign() * real[told.sender, told.item]
    agree = told.sum((same > 0).double())
    against = told.sum((same < 0).double())
    return float(torch.maximum(agree, against).sum() / len(train.item))


def _judged(
    attack: Attack, prior: Prior, views: Sequence[View], world: World
) -> Judged:
    truth = Truth(world, {}, {}, world.train.counts > 0)
    return judge(claimed(attack, prior, views), truth, prior)


def _means(judged: Judged) -> dict[str, float]:
    means = {name: score.mean() for name, score in judged.scores.items()}
    floors = {f"floor {name}": score.mean() for name, score in judged.floor.items()}
    return means | floors


def _claims(rows: Sequence[Row]) -> list[Claim]:
    by = {(row.way, row.attack): row for row in rows}

    def near(way: str, attack: str, published: float, tolerance: float) -> Claim:
        ours = by[way, attack].scores["within_half_star"]
        name = f"{way}, {attack}: within half a star"
        return Claim(name, published, ours, tolerance, EARLIER)

    two, one = ATTACKS
    found = [
        near("1 local step", two, 1.0, 0.0),
        near("1 local step", one, 1.0, 0.0),
        *(near(f"{k} local steps", one, 1.0, 0.01) for k in (2, 5, 10)),
        near("upload clipped to half the median norm", one, 1.0, 0.01),
    ]
    for way, share in (("Adam, 1 local step", 1.0), ("Adam, 5 local steps", 0.98)):
        ours = by[way, two].signs
        found.append(Claim(f"{way}: signs of errors", share, ours, 0.02, EARLIER))
    return found


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("way", "attack"):
        table.add_column(name, no_wrap=True)
    names = ("exact", "within_half_star", "mae", "coverage", "precision")
    for name in ("exact", "half a star", "MAE", "claimed", "of real", "signs"):
        table.add_column(name, justify="right", no_wrap=True)
    floor = rows[0].scores
    cells = [f"{floor[f'floor {name}']:.3f}" for name in names[:3]]
    table.add_row("the best one rating for all", "", *cells)
    for row in rows:
        cells = [f"{row.scores[name]:.3f}" for name in names if row.scores]
        cells = cells or ["refused", "", "", "", ""]
        table.add_row(row.way, row.attack, *cells, f"{row.signs:.3f}")
    return table


if __name__ == "__main__":
    main()
