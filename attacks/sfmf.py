"""Every rating of every user, out of two uploads of SFMF, or out of one.

Chai et al. (IEEE Intelligent Systems 2020) show that two consecutive uploads of
federated matrix factorization determine a client's ratings. Here all ratings of
MovieLens latest-small train (nothing is held out), every client uploads in every round,
and ``rating_two_rounds`` and ``rating_grid`` read two uploads and one: before anything
was learned, and after 20 rounds. Then the same under Gaussian noise on the gradient,
and on the released code's own training, which moves the user vector with every rating.
The later uploads are trained at a rate of 3e-4: at the 1e-3 of the claims, training on
the full batch diverges on these data.

    python attacks/sfmf.py

It needs ``privfed data get ml-latest-small``, or --data with a path.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import click
from claims import Claim, tell
from rich.console import Console
from rich.table import Table
from torch import Tensor

from privfed.adversary import Attack, Prior
from privfed.attacks.ratings.one_round import RatingGrid
from privfed.attacks.ratings.two_rounds import RatingTwoRounds
from privfed.channels.plain import Plain
from privfed.data.cohort import cohort_of
from privfed.data.load import DataSettings, interactions
from privfed.data.splits import by_ratio
from privfed.data.world import World
from privfed.defenses.gaussian import Gaussian
from privfed.guesses import Ratings
from privfed.interfaces import Opening, Round, Turn
from privfed.methods.fedmf import FedMF
from privfed.metrics.leakage.bits import bits_per_rating
from privfed.metrics.leakage.judged import Truth
from privfed.metrics.leakage.ratings import judge
from privfed.seeds import Seeds
from privfed.views import ServerView, UploadsView, View

SEEDS = Seeds(0)
LATE = 20  # rounds of training before the later uploads
SIGMAS = (0.0, 1e-3, 1e-2, 1e-1)
START = {"start": 0.0, "start_spread": 0.1}
EARLIER = "an earlier measurement"


@dataclass(frozen=True)
class Case:
    """One way to train, and the deviations of noise that its uploads meet."""

    name: str
    method: FedMF
    double: bool = True
    sigmas: Sequence[float] = (0.0,)
    after: int = 0  # rounds of training before


ONCE = FedMF(width=32, steps="all", reads="old", **START)  # type: ignore[arg-type]
# At the rate of 1e-3 full-batch training diverges within 15 rounds on these data.
LATER = replace(ONCE, learning_rate=3e-4)
CASES = (
    Case("d=32", ONCE, sigmas=SIGMAS),
    Case("d=32 f32", ONCE, double=False),
    Case("d=32 decay .01", replace(ONCE, regularization=1e-2)),
    Case("d=100", replace(ONCE, width=100)),
    Case("d=100 f32", replace(ONCE, width=100), double=False),
    Case("d=32 rate 3e-4", LATER, sigmas=SIGMAS, after=LATE),
    Case("d=32 rate 3e-4 f32", LATER, double=False, after=LATE),
    Case("released code, f32", replace(ONCE, steps="each", reads="new"), double=False),
)


@dataclass(frozen=True)
class Row:
    """What one attack recovered."""

    case: str
    sigma: float
    after: int  # rounds before
    attack: str
    exact: float  # share of ratings
    users: float  # share of users with every rating right
    rmse: float  # of ratings before they are rounded, where that is possible
    bits: float  # that a rating's row can tell at most, on average
    seconds: float


@click.command(help=__doc__)
@click.option("--data", default="ml-latest-small", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the claims as JSON.")
def main(data: str, as_json: bool) -> None:
    """Attack, print what was recovered, and compare it with what was claimed."""
    every = interactions(DataSettings(data=data))
    world = by_ratio(every, 0, (1.0, 0.0, 0.0), "rating")
    rows = [row for case in CASES for row in measured(case, world)]
    if not as_json:
        Console(width=100).print(_table(rows), highlight=False)
    tell(_claims(rows), as_json)


def measured(case: Case, world: World) -> Iterator[Row]:
    """What both attacks recover of two rounds' uploads."""
    first, second = deque(_rounds(case, world, case.after + 2), maxlen=2)
    length = first[1].double().norm(dim=1)
    if not bool(length.isfinite().all()):
        raise click.ClickException(f"{case.name}: training diverged")
    variance = float(world.train.label.double().var())
    counts = world.train.counts
    for sigma in case.sigmas:
        click.echo(f"{case.name}, sigma {sigma:g}", err=True)
        views = _views(first, case.after, sigma, world)
        later = _views(second, case.after + 1, sigma, world)
        told = bits_per_rating(2 * length, variance, sigma)
        bits = float((told * counts).sum() / counts.sum())
        closed = [*views, *later] if case.method.steps == "all" else views
        yield _row(case, sigma, RatingTwoRounds(), closed, bits, world)
        yield _row(case, sigma, RatingGrid(), views, bits, world)


def _rounds(
    case: Case, world: World, count: int
) -> Iterator[tuple[dict[str, Tensor], Tensor, UploadsView]]:
    """Of each round the model, the user vectors, and what the server sees."""
    method, channel = case.method, Plain()
    model, private = method.init(world.shape, SEEDS("init"))
    if case.double:
        model = {name: value.double() for name, value in model.items()}
        private = {name: value.double() for name, value in private.items()}
    cohort = cohort_of(world, world.eligible)
    for number in range(count):
        now = Round(number, SEEDS("train", number), SEEDS("once"))
        trained = method.train(model, private, cohort, now)
        draws = SEEDS("channel", number)
        opened = channel.open(Opening(number, world.shape, cohort.clients, draws))
        opened, view = channel.send(opened, trained.uploads)
        assert isinstance(view, UploadsView)
        yield dict(model), private["users"], view
        model = method.apply(model, channel.close(opened).total)
        private = {
            "users": private["users"].index_copy(
                0, cohort.clients, trained.private["users"]
            )
        }


def _views(
    seen: tuple[dict[str, Tensor], Tensor, UploadsView],
    number: int,
    sigma: float,
    world: World,
) -> list[View]:
    """What the server holds and gets, with noise on the gradient."""
    model, _, view = seen
    if sigma:
        defense = Gaussian(variance=sigma**2, rows="touched")
        turn = Turn(number, world.shape, SEEDS("noise", number))
        view = replace(view, uploads=defense.on_upload(view.uploads, turn))
    return [ServerView(round=number, model=model), view]


def _row(
    case: Case,
    sigma: float,
    attack: Attack,
    views: Sequence[View],
    bits: float,
    world: World,
) -> Row:
    start = time.process_time()
    prior = Prior(world.shape, SEEDS("attack"), case.method)
    guess = claimed(attack, prior, views)
    seconds = time.process_time() - start
    truth = Truth(world, {}, {}, world.train.counts > 0)
    scores = judge(guess, truth, prior).scores
    raw = replace(prior, shape=replace(world.shape, step=0.0))
    bare = claimed(attack, raw, views)  # rounding aside
    rmse = judge(bare, truth, raw).scores["rmse"] if len(bare.rating) else None
    return Row(
        case.name,
        sigma,
        case.after,
        "one upload, grid" if isinstance(attack, RatingGrid) else _uploads(case),
        scores["exact"].mean(),
        scores["users_exact"].mean(),
        rmse.mean() if rmse is not None else scores["rmse"].mean(),
        bits,
        seconds,
    )


def _uploads(case: Case) -> str:
    return "two uploads" if case.method.steps == "all" else "one upload, no grid"


def claimed(attack: Attack, prior: Prior, views: Sequence[View]) -> Ratings:
    """What an attack claims after some views."""
    ready = attack.prepare(prior)
    memory = ready.start(prior)
    for view in views:
        memory = ready.observe(memory, view)
    guess = ready.guess(memory, prior)
    assert isinstance(guess, Ratings)
    return guess


def _claims(rows: Sequence[Row]) -> list[Claim]:
    two = [row for row in rows if row.attack == "two uploads"]
    one = [row for row in rows if row.attack == "one upload, grid"]
    clean = [row for row in two if not row.sigma]
    plain = [r for r in clean if r.case == CASES[0].name]
    found = [
        Claim(
            "two uploads: share of ratings exact, the least of all clean cases",
            1.0,
            min(row.exact for row in clean),
            0.0,
            f"{EARLIER}; Chai et al. prove that it can be done",
        ),
        Claim(
            "two uploads: RMSE before rounding, the largest of all clean cases",
            1e-6,
            max(row.rmse for row in clean),
            0.0,
            EARLIER,
            "at most",
        ),
        Claim(
            "two uploads: seconds of the attack, d=32",
            10.0,
            plain[0].seconds,
            0.0,
            EARLIER,
            "at most",
        ),
    ]
    for sigma in (0.0, 1e-3, 1e-2):
        users = [r.users for r in one if r.sigma == sigma and r.case == CASES[0].name]
        name = f"one upload on the grid, noise {sigma:g}: share of users all right"
        found.append(Claim(name, 0.995, min(users), 0.0, EARLIER, "at least"))
    curve = {(1e-3, 0): 1.0, (1e-2, 0): 0.9999, (1e-1, 0): 0.903}
    curve |= {(1e-3, LATE): 1.0, (1e-2, LATE): 1.0, (1e-1, LATE): 0.983}
    for (sigma, after), share in curve.items():
        at = (sigma, after)
        ours = [r.exact for r in two if (r.sigma, r.after) == at]
        name = f"two uploads after {after} rounds, noise {sigma:g}: share exact"
        name += " (rate 3e-4, claimed of 1e-3)" if after else ""
        found.append(Claim(name, share, ours[0], 0.01, EARLIER))
    return found


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("case", "sigma", "after", "attack"):
        table.add_column(name, no_wrap=True)
    for name in ("exact", "users", "RMSE", "bits", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.case,
            f"{row.sigma:g}",
            f"{row.after}",
            row.attack,
            f"{row.exact:.2%}",
            f"{row.users:.2%}",
            f"{row.rmse:.1e}",
            f"{row.bits:.2f}",
            f"{row.seconds:.1f}",
        )
    return table


if __name__ == "__main__":
    main()
