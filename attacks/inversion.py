"""Ratings by optimization: does differentiating through local training pay?

FedMF on ratings, width 64, attacked after 150 rounds by ``inversion``: L-BFGS on the
squared error of one and of two simulated uploads (DLG), Adam, and signed Adam on the
cosine (Inverting Gradients), through 1, 5 and 10 local steps. Errors are in stars;
"within .5" is the share of ratings within half a star.

    python attacks/inversion.py

Figures stand beside an earlier measurement of ours (L-BFGS through 5 and 10 steps: a
median error of a client of .003 and .010, a mean of .15 and .18). The exit code is 1
where the strongest attack does worse. The data are MovieLens-100K where it is at hand
(``privfed data get ml-100k``), else the generated demo world.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace

import click
import torch
from at_hand import at_hand
from claims import Claim, table
from rich.console import Console
from rich.table import Table
from torch import Tensor

from privfed.attacks.ratings.inversion import Inversion
from privfed.channels.plain import Plain
from privfed.data.load import DataSettings, load
from privfed.data.world import World
from privfed.evaluation.protocol import Protocol
from privfed.guesses import Ratings
from privfed.machine import Machine
from privfed.methods.fedmf import FedMF
from privfed.rounds import Outcome, Setup, run

SOURCE = "an earlier measurement"
EARLIER = {5: (0.003, 0.15), 10: (0.010, 0.18)}  # median and mean error by local steps
STRONGEST = "l2, L-BFGS, 2 uploads"
STEP = 3e-4  # of all local steps of a round together
METHOD = FedMF(
    width=64,
    learning_rate=STEP,
    steps="all",
    reads="old",
    start=0.2,
    start_spread=0.1,
)


@dataclass(frozen=True)
class Row:
    """How far the claimed ratings of some clients are from theirs."""

    steps: int
    attack: str
    clients: int
    median: float  # of the clients' mean errors
    mean: float
    near: float  # share of ratings within half a star
    seconds: float  # of a client


@click.command(help=__doc__)
@click.option("--data", help="Name or path.  [default: ml-100k, else demo]")
@click.option("--rounds", default=150, show_default=True, help="Before the attack.")
@click.option("--victims", default=24, show_default=True)
@click.option("--steps", multiple=True, type=int, default=(1, 5, 10), show_default=True)
@click.option("--iterations", default=300, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def main(
    data: str | None,
    rounds: int,
    victims: int,
    steps: tuple[int, ...],
    iterations: int,
    workers: int,
    as_json: bool,
) -> None:
    """Attack, print one table, and judge the claims."""
    known = load(DataSettings(data or at_hand()), "rating").world
    world = replace(known, shape=replace(known.shape, step=0.0))  # errors unrounded
    strongest = Inversion(victims, tries=1, iterations=iterations, after=rounds)
    rows = []
    for count in steps:
        click.echo(f"{count} local steps", err=True)
        rows += list(_measured(world, count, strongest, Machine(workers=workers)))
    claims = list(_claims(rows))
    if as_json:
        told = [{**asdict(c), "holds": c.holds} for c in claims]
        click.echo(json.dumps([*(asdict(row) for row in rows), *told], indent=2))
    else:
        console = Console()
        console.print(shown(rows), highlight=False)
        if claims:
            console.print(table(claims), highlight=False)
    if not all(one.holds for one in claims):
        raise SystemExit(1)


def searches(strongest: Inversion) -> Mapping[str, Inversion]:
    longer = replace(strongest, iterations=2 * strongest.iterations)
    return {
        STRONGEST: strongest,
        "l2, L-BFGS, 1 upload": replace(strongest, uploads=1),
        "l2, Adam, 2 uploads": replace(longer, optimizer="adam"),
        "cosine, signed Adam, 2 uploads": replace(
            longer, optimizer="signed", distance="cosine"
        ),
    }


def _measured(
    world: World, steps: int, strongest: Inversion, machine: Machine
) -> Iterator[Row]:
    method = replace(METHOD, learning_rate=STEP / steps, local_steps=steps)
    attacks = searches(strongest)
    rounds = strongest.after + 2
    setup = Setup(
        world,
        method,
        Plain(),
        attacks=attacks,
        protocol=Protocol(every=rounds),
        rounds=rounds,
    )
    outcome = run(setup, machine)
    for name in attacks:
        yield row_of(outcome, world, steps, name)


def row_of(outcome: Outcome, world: World, steps: int, name: str) -> Row:
    found = outcome.guesses[name]
    assert isinstance(found, Ratings)
    error = _errors(found, world)
    count = torch.bincount(found.sender, minlength=len(found.clients))
    each = torch.zeros(len(found.clients), dtype=torch.float64)
    each = each.index_add(0, found.sender, error) / count
    spent = outcome.state.costs.attacks[name]
    return Row(
        steps,
        name,
        len(found.clients),
        float(each.median()),
        float(each.mean()),
        float((error < 0.5).double().mean()),
        spent / max(1, len(found.clients)),
    )


def _errors(found: Ratings, world: World) -> Tensor:
    """Distance of each claimed rating from the true one."""
    true = torch.full((world.shape.clients, world.shape.items), torch.nan)
    true[world.train.owner, world.train.item] = world.train.label
    return (found.rating - true[found.clients[found.sender], found.item]).abs()


def _claims(rows: list[Row]) -> Iterator[Claim]:
    for row in rows:
        if row.attack == STRONGEST and row.steps in EARLIER:
            median, mean = EARLIER[row.steps]
            told = f"{row.steps} local steps: error of a client"
            yield Claim(f"{told}, median", median, row.median, 0.0, SOURCE, "at most")
            yield Claim(f"{told}, mean", mean, row.mean, 0.0, SOURCE, "at most")


def shown(rows: list[Row]) -> Table:
    cells = Table(box=None, pad_edge=False)
    for name in ("local steps", "attack"):
        cells.add_column(name)
    for name in ("clients", "median", "mean", "within .5", "s a client"):
        cells.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells.add_row(
            str(row.steps),
            row.attack,
            str(row.clients),
            *(f"{v:.4f}" for v in (row.median, row.mean)),
            f"{row.near:.3f}",
            f"{row.seconds:.2f}",
        )
    return cells


if __name__ == "__main__":
    main()
