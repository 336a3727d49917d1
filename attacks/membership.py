"""All attacks on the items of one upload, ranking the same candidates.

    python attacks/membership.py
    python attacks/membership.py --method bpr --defense none --attack likelihood_ratio

One round of each method under each defense. Candidates are the items that a client
sent, of all clients together, or of those that a slow attack chose. AUC, the true
positive rate where 1 of 1,000 others is accused, and balanced accuracy rank all of them
at once; precision, recall and F1 are means over clients of what an attack decides: of
log odds, what is above zero.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import click
import torch
from rich.console import Console
from rich.table import Table

from privfed.adversary import NotApplicable
from privfed.channels.plain import Plain
from privfed.choices import choose
from privfed.cli.progress import Line
from privfed.data.load import DataSettings, load
from privfed.data.world import World
from privfed.guesses import Interactions, Items
from privfed.machine import Machine
from privfed.metrics.leakage import interactions, items
from privfed.metrics.leakage.judged import Judged, Truth
from privfed.rounds import Outcome, Setup, run

ATTACKS = ("support", "sign_pc", "imia", "likelihood_ratio", "raifle")
DEFENSES = ("none", "imia_ldp", "imia_regularizer", "gaussian:variance=1e-6")
METHODS = ("pfedrec", "fedncf")


@dataclass(frozen=True)
class Rank:
    """How one attack ranks the items that clients sent."""

    method: str
    defense: str
    attack: str
    clients: int
    precision: float
    recall: float
    f1: float
    auc: float
    tpr: float  # where 1 in 1,000 is falsely accused
    accuracy: float


@click.command(help=__doc__)
@click.option("--data", default="ml-100k", show_default=True)
@click.option("--method", "methods", multiple=True, default=METHODS, show_default=True)
@click.option(
    "--defense", "defenses", multiple=True, default=DEFENSES, show_default=True
)
@click.option("--attack", "attacks", multiple=True, default=ATTACKS, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def main(
    data: str,
    methods: Sequence[str],
    defenses: Sequence[str],
    attacks: Sequence[str],
    seed: int,
    as_json: bool,
) -> None:
    """All attacks on items from one upload, ranking what was sent."""
    world = load(DataSettings(data), "ranking").world
    rows = [
        row
        for method in methods
        for defense in defenses
        for row in _ranks(world, method, defense, attacks, seed)
    ]
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        Console(width=120).print(_ranking(rows), highlight=False)


def _ranks(
    world: World, method: str, defense: str, attacks: Sequence[str], seed: int
) -> list[Rank]:
    click.echo(f"{method}, {defense}", err=True)
    chain = () if defense == "none" else (choose("defense", defense).part,)
    watching = [*attacks, "likelihood_ratio"]  # which tells what was sent
    parts = {name: choose("attack", name).part for name in watching}
    setup = Setup(
        world,
        choose("method", method).part,
        Plain(),
        chain,
        parts,
        rounds=1,
        seed=seed,
    )
    with Line(seed, 1) as line:
        outcome = run(
            setup,
            Machine(workers=1),
            progress=lambda at, of, row: line(seed, at, of, row),
        )
    sent = outcome.guesses["likelihood_ratio"]
    if not isinstance(sent, Interactions):
        raise click.UsageError(f"{method} does not rank items; take one that does")
    common = replace(sent, score=world.popularity[sent.item].double())
    rows = [_rank(world, outcome, "popularity", common, None)]
    for name in attacks:
        guess = outcome.guesses[name]
        if isinstance(guess, Items):
            rows.append(_rank(world, outcome, name, _of_sent(guess, sent), guess))
        elif isinstance(guess, NotApplicable):
            click.echo(f"{name}: {guess.reason}", err=True)
        elif isinstance(guess, Interactions):
            rows.append(_rank(world, outcome, name, guess, _decided(guess, world)))
    return [replace(row, method=method, defense=defense) for row in rows]


def _of_sent(guess: Items, sent: Interactions) -> Interactions:
    """An attack's scores of the items that its clients sent."""
    attacked = torch.searchsorted(sent.clients, guess.clients)
    place = torch.full((len(sent.clients),), -1)
    place[attacked] = torch.arange(len(attacked))
    at = (place[sent.sender] >= 0).nonzero()[:, 0]
    sender, item = place[sent.sender[at]], sent.item[at]
    score = guess.score[sender, item].double()
    return Interactions(guess.clients, sender, item, score)


def _decided(guess: Interactions, world: World) -> Items:
    """What is likelier an interaction than not, where scores are log odds."""
    chosen = torch.zeros(len(guess.clients), world.shape.items, dtype=torch.bool)
    chosen[guess.sender, guess.item] = guess.score > 0
    return Items(guess.clients, chosen.float(), chosen)


def _rank(
    world: World,
    outcome: Outcome,
    name: str,
    ranking: Interactions,
    decision: Items | None,
) -> Rank:
    state = outcome.state
    truth = Truth(world, state.model, state.private, state.took_part)
    judged = interactions.judge(ranking, truth, outcome.priors["likelihood_ratio"])
    assert isinstance(judged, Judged)
    told = dict.fromkeys(("precision", "recall", "f1"), torch.nan)
    if decision is not None:
        scores = items.score(decision, world.train)
        told = {name: float(scores[name].nanmean()) for name in told}
    pooled = [
        judged.scores[metric].mean()
        for metric in ("auc", "tpr@fpr_1e-3", "balanced_accuracy")
    ]
    return Rank("", "", name, len(ranking.clients), *told.values(), *pooled)


def _ranking(rows: Sequence[Rank]) -> Table:
    shown = Table(box=None, pad_edge=False)
    shown.add_column("", no_wrap=True)
    for name in (
        "clients",
        "precision",
        "recall",
        "F1",
        "AUC",
        "TPR at\nFPR 0.1 %",
        "balanced\naccuracy",
    ):
        shown.add_column(name, justify="right")
    group = ""
    for row in rows:
        if group != (group := f"{row.method}, {row.defense}"):
            shown.add_row(group)
        figures = (row.precision, row.recall, row.f1, row.auc, row.tpr, row.accuracy)
        cells = ("" if x != x else f"{x:.3f}" for x in figures)
        shown.add_row(f"  {row.attack}", f"{row.clients:,}", *cells)
    return shown


if __name__ == "__main__":
    main()
