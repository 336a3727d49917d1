"""Who is it? Gender, age and occupation from what a recommender's uploads give away.

``attribute`` trains a logistic regression on users whose attributes are known, five
folds, and reads what other attacks recovered of the rest: their items (``sign_pc``) or
their vectors (``user_vector``). Beside it stand references that no adversary has, the
true private vectors and the true items; and what tells little: the commonest value, and
how much a user takes and how popular that is.

    python attacks/attributes.py

The data are MovieLens-100K where it is at hand (``privfed data get ml-100k``), else the
generated demo world, whose users' attributes follow from their taste. ``--protocol``
adds the split of UC-FedRec (70/15/15, random_state 1; validation chooses the penalty).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click
import torch
from at_hand import at_hand
from rich.console import Console
from rich.table import Table
from torch import Tensor

from privfed.adversary import NotApplicable, Prior
from privfed.attacks.users.attribute import Attribute, classified, told
from privfed.cli.progress import Line
from privfed.config import RunSettings, run_settings
from privfed.data.attributes import UNKNOWN, Labels
from privfed.data.load import load
from privfed.data.world import World
from privfed.figures import recovered
from privfed.guesses import Attributes, Items
from privfed.interfaces import Method
from privfed.metrics.leakage.attributes import judge
from privfed.metrics.leakage.judged import Judged, Truth, interval
from privfed.result import Figure
from privfed.rounds import Outcome, Setup, run
from privfed.seeds import Seeds
from privfed.surfaces import AlongUser, ReadsUser

METHODS = ("pfedrec", "fedncf", "bpr")
DEFENSES = ("none", "gaussian:variance=1e-6", "dp:epsilon=8", "ldp:epsilon=8")
ATTACKS = {
    "recovered items": Attribute(source="items"),
    "recovered vector": Attribute(source="vector"),
}
METRICS = ("gender_auc", "gender_accuracy", "age_accuracy", "occupation_accuracy")
PENALTIES = (0.1, 1.0, 10.0)
FOLDS = 5
_WIDE = 120  # columns that the table takes


@dataclass(frozen=True)
class Row:
    """What one source told under one defense; nothing where it could not be read."""

    method: str
    defense: str
    source: str
    figures: Mapping[str, Figure]
    why: str = ""


@click.command(help=__doc__)
@click.option("--data", help="Name or path.  [default: ml-100k, else demo]")
@click.option("--method", "methods", multiple=True, default=METHODS, show_default=True)
@click.option(
    "--defense", "defenses", multiple=True, default=DEFENSES, show_default=True
)
@click.option("--rounds", default=5, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option("--protocol", is_flag=True, help="Also UC-FedRec's 70/15/15 split.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def main(
    data: str | None,
    methods: Sequence[str],
    defenses: Sequence[str],
    rounds: int,
    workers: int,
    protocol: bool,
    as_json: bool,
) -> None:
    """Attack under every defense and print one table."""
    common = {
        "data": {"data": data or at_hand(), "features": []},
        "rounds": rounds,
        "machine": {"workers": workers},
    }
    rows: list[Row] = []
    for method in methods:
        for defense in defenses:
            click.echo(f"{method}, {defense}", err=True)
            parts = {"defense": [defense], "attack": ["none"]}
            settings = run_settings({**common, "method": method}, parts)
            rows += _rows(settings, method, defense, protocol)
    if as_json:
        click.echo(json.dumps([_plain(row) for row in rows], indent=2))
        return
    Console(width=_WIDE).print(_table(rows), highlight=False)


def _rows(
    settings: RunSettings, method: str, defense: str, protocol: bool
) -> Iterator[Row]:
    """One run, read in every way."""
    world = load(settings.data, settings.method.part.task).world
    outcome = _outcome(settings, world)
    leaked = recovered([outcome], Seeds(0)("bootstrap"))
    for source in ATTACKS:
        key = f"leakage.{source}."
        told_of = {
            name: leaked.figures[key + name]
            for name in METRICS
            if key + name in leaked.figures
        }
        yield Row(method, defense, source, told_of, leaked.refused.get(source, ""))
    prior = outcome.priors["recovered items"]
    for source, table in _references(settings.method.part, outcome, world).items():
        yield Row(method, defense, source, _five_folds(table, world, prior))
    yield Row(method, defense, "commonest value", _commonest(world, prior))
    if protocol:
        yield from _protocol(method, defense, settings.method.part, outcome, world)


def _outcome(settings: RunSettings, world: World) -> Outcome:
    setup = Setup(
        world,
        settings.method.part,
        settings.channel.part,
        tuple(one.part for one in settings.defense),
        ATTACKS,
        settings.sampling,
        settings.protocol,
        settings.rounds,
        seed=settings.seed,
    )
    with Line(settings.seed, 1) as line:

        def progress(round: float, rounds: int, row: Mapping[str, float]) -> None:
            line(settings.seed, round, rounds, row)

        return run(setup, settings.machine, progress=progress)


def _references(method: Method, outcome: Outcome, world: World) -> dict[str, Tensor]:
    """What no adversary has, and what anybody has, as a table by user."""
    clients = torch.arange(world.shape.clients)
    real = torch.zeros(world.shape.clients, world.shape.items, dtype=torch.bool)
    real[world.train.owner, world.train.item] = True
    found = {"true items": told(Items(clients, real.double(), real), world.shape.items)}
    name = _private(method)
    if name:
        vector = outcome.state.private[name].flatten(1).double().cpu()
        found["true vector"] = vector / vector.norm(dim=1, keepdim=True)
    typical = real.double() @ world.popularity.double() / real.sum(1).clamp_min(1)
    amount = torch.stack([real.sum(1).double().log1p(), typical.log1p()], 1)
    found["amount and popularity"] = (amount - amount.mean(0)) / amount.std(0)
    return found


def _private(method: Method) -> str:
    if isinstance(method, ReadsUser):
        return method.user_layer().vector
    return method.user_direction() if isinstance(method, AlongUser) else ""


def _five_folds(table: Tensor, world: World, prior: Prior) -> dict[str, Figure]:
    """A table read by the attack's own classifier."""
    clients = torch.arange(world.shape.clients)
    draws = Seeds(0)("folds").generator()
    folds = torch.randperm(len(clients), generator=draws).chunk(FOLDS)
    scores = {}
    for name, labels in world.attributes.items():
        scores[name] = table.new_zeros(len(clients), len(labels.names))
        for fold in folds:
            known = labels.label.clone()
            known[fold] = UNKNOWN
            hidden = Labels(labels.names, known)
            scores[name][fold] = classified(table, hidden, clients, 1.0)[fold]
    return _figures(_judged(Attributes(clients, scores), world, prior))


def _commonest(world: World, prior: Prior) -> dict[str, Figure]:
    """What naming the commonest value reaches: the floor of any claim."""
    clients = torch.arange(world.shape.clients)
    blind = {
        name: torch.zeros(len(clients), len(labels.names))
        for name, labels in world.attributes.items()
    }
    floor = _judged(Attributes(clients, blind), world, prior).floor
    return {name: Figure(floor[name].mean()) for name in METRICS if name in floor}


def _judged(guess: Attributes, world: World, prior: Prior) -> Judged:
    everybody = torch.ones(world.shape.clients, dtype=torch.bool)
    truth = Truth(world, {}, {}, everybody)
    found = judge(guess, truth, prior)
    assert not isinstance(found, NotApplicable)
    return found


def _figures(judged: Judged) -> dict[str, Figure]:
    found = {}
    for name in METRICS:
        if name in judged.scores:
            measure = judged.scores[name]
            low, high = interval(measure, Seeds(0)("bootstrap").of(name))
            found[name] = Figure(measure.mean(), low, high, "clients")
    return found


def _protocol(
    method: str, defense: str, part: Method, outcome: Outcome, world: World
) -> Iterator[Row]:
    """UC-FedRec's split: 70 % teach, 15 % choose the penalty, 15 % are judged."""
    from sklearn.model_selection import train_test_split

    users = range(world.shape.clients)
    teach, rest = train_test_split(users, test_size=0.3, random_state=1)
    choose, test = train_test_split(rest, test_size=0.5, random_state=1)
    split = [torch.tensor(sorted(part)) for part in (teach, choose, test)]
    for source, table in _tables(part, outcome, world).items():
        figures = _split_figures(table, world, split, outcome.priors["recovered items"])
        yield Row(method, defense, f"70/15/15, {source}", figures)


def _tables(part: Method, outcome: Outcome, world: World) -> dict[str, Tensor]:
    """Everything that can be read of a user, as tables over all users."""
    found = _references(part, outcome, world)
    for source, attack in ATTACKS.items():
        if not isinstance(outcome.guesses[source], NotApplicable):
            prior = outcome.priors[source]
            inner = attack.inner(prior).guess(outcome.state.memory[source], prior)
            rows = told(inner, world.shape.items)
            table = rows.new_zeros(world.shape.clients, rows.shape[1])
            found[source] = table.index_copy(0, inner.clients, rows)
    return found


def _split_figures(
    table: Tensor, world: World, split: Sequence[Tensor], prior: Prior
) -> dict[str, Figure]:
    teach, choose, test = split
    clients = torch.arange(world.shape.clients)
    scores = {}
    for name, labels in world.attributes.items():
        known = torch.full_like(labels.label, UNKNOWN)
        known[teach] = labels.label[teach]
        tries = [
            classified(table, Labels(labels.names, known), clients, fit)
            for fit in PENALTIES
        ]
        right = [
            float((one[choose].argmax(1) == labels.label[choose]).double().mean())
            for one in tries
        ]
        scores[name] = tries[right.index(max(right))][test]
    return _figures(_judged(Attributes(test, scores), world, prior))


def _plain(row: Row) -> dict[str, Any]:
    figures = {name: asdict(figure) for name, figure in row.figures.items()}
    return {**asdict(row), "figures": figures}


def _table(rows: Sequence[Row]) -> Table:
    shown = Table(box=None, pad_edge=False)
    shown.add_column("")
    for name in ("gender AUC", "gender", "age", "occupation"):
        shown.add_column(name, no_wrap=True)
    before = ("", "")
    for row in rows:
        if before != (row.method, row.defense):
            shown.add_row(f"{row.method}, {row.defense}")
            before = row.method, row.defense
        cells = [_cell(row.figures[name]) for name in METRICS if name in row.figures]
        shown.add_row(f"  {row.source}", *(cells or [row.why]))
    return shown


def _cell(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return f"{figure.value:.3f}"
    return f"{figure.value:.3f} ({figure.low:.2f} to {figure.high:.2f})"


if __name__ == "__main__":
    main()
