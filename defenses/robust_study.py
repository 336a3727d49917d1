"""What robust server rules cost, what they stop, and where they cannot.

Trains one method under each rule, over whole uploads and item by item, while a share of
the clients sends forged uploads:

  noise   Gaussian rows for every item, each --times as long as the client's own
  flip    the client's own upload with every sign turned
  push    one row, for one cold target: toward the mean of the ten longest item rows,
          as long as the client's own longest row

and says what is left of HR@10 after the last round, over all clients, and in how many
honest clients' top ten the target is (ER@10). A second table counts senders: an item's
honest senders in a round against the forgers, who can all send every item in every
round. Runs share every other random draw, so rows can be compared.

    python defenses/robust_study.py --data ml-100k
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import click
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from privfed.accounting.guarantee import Guarantee
from privfed.choices import choose
from privfed.data.cohort import cohort_of
from privfed.data.load import DataSettings, load
from privfed.data.world import World
from privfed.errors import PrivfedError, SettingsError
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import Defense, Ranker, Round, Turn
from privfed.machine import Machine
from privfed.messages import Rows, Uploads, everywhere, summed
from privfed.rounds import Outcome, Setup, run
from privfed.sampling import Sampling
from privfed.seeds import Seeds

ITEMS = "items"  # the table of item rows
TOLD = ("trimmed_mean", "krum", "multi_krum", "bulyan")  # how many liars there may be
RULES = (
    "plain",
    "median",
    "trimmed_mean",
    "trimmed_mean:drop=farthest",
    "krum",
    "multi_krum",
    "bulyan",
    "norm_bound",
)
BINS = ((1, 5), (6, 20), (21, 50), (51, 100), (101, 200), (201, 10**9))


@dataclass(frozen=True)
class Forged(Defense):
    """What corrupted devices send in place of their uploads; a defense in form only."""

    clients: Tensor  # (corrupted,) ids
    target: int
    times: float  # how much longer noise is than a client's own rows

    def guarantee(self) -> Guarantee:
        words = ("none", "none", "nobody", "none", "what corrupted devices send")
        return Guarantee(False, None, None, *words)

    def own(self, uploads: Uploads) -> tuple[Tensor, Rows, Rows]:
        """Who is corrupted, (clients,) bool; the others' item rows, and theirs."""
        table = uploads.rows[ITEMS]
        bad = torch.isin(uploads.clients, self.clients)
        there = bad[table.sender]
        parts = [
            Rows(table.sender[at], table.item[at], table.value[at])
            for at in (~there, there)
        ]
        return bad, parts[0], parts[1]


class Noise(Forged):
    """Gaussian rows for every item."""

    def on_upload(self, uploads: Uploads, turn: Turn) -> Uploads:
        bad, honest, own = self.own(uploads)
        at = bad.nonzero()[:, 0]
        if not len(at):
            return uploads
        rows = everywhere(
            replace(own, sender=place(at, own)), len(at), turn.shape.items
        )
        value = drawn(rows.value.view(len(at), -1), uploads.clients[at], turn, ITEMS)
        value = (
            value.view_as(rows.value) / value[0, : rows.value.shape[1]].numel() ** 0.5
        )
        value *= self.times * mean_norm(own, len(bad))[at][rows.sender, None]
        sender = torch.cat([honest.sender, at[rows.sender]])
        item = torch.cat([honest.item, rows.item])
        every = torch.cat([honest.value, value])
        dense = {name: v.clone() for name, v in uploads.dense.items()}
        for name, v in dense.items():
            size = (
                v[at].flatten(1).square().mean(1).sqrt().view(-1, *[1] * (v.dim() - 1))
            )
            v[at] = self.times * size * drawn(v[at], uploads.clients[at], turn, name)
        return put(uploads, summed(sender, item, every, turn.shape.items), dense)


class Flip(Forged):
    """The client's own upload with every sign turned."""

    def on_upload(self, uploads: Uploads, turn: Turn) -> Uploads:
        bad, _, _ = self.own(uploads)
        sign = 1.0 - 2.0 * bad.float()
        table = uploads.rows[ITEMS]
        rows = replace(table, value=table.value * sign[table.sender, None])
        dense = {
            name: v * sign.view(-1, *[1] * (v.dim() - 1))
            for name, v in uploads.dense.items()
        }
        return put(uploads, rows, dense)


class Push(Forged):
    """One row, for the target, toward what most users like."""

    def on_upload(self, uploads: Uploads, turn: Turn) -> Uploads:
        bad, honest, own = self.own(uploads)
        at, items = bad.nonzero()[:, 0], turn.model[ITEMS]
        popular = items[items.norm(dim=1).topk(10).indices].mean(0)
        length = own.value.norm(dim=1)
        longest = length.new_zeros(len(bad)).scatter_reduce(
            0, own.sender, length, "amax"
        )
        value = longest[at, None] * popular / popular.norm()
        sender = torch.cat([honest.sender, at])
        item = torch.cat([honest.item, torch.full_like(at, self.target)])
        every = torch.cat([honest.value, value])
        return put(uploads, summed(sender, item, every, len(items)), uploads.dense)


KINDS: Mapping[str, type[Forged] | None] = {
    "none": None,
    "noise": Noise,
    "flip": Flip,
    "push": Push,
}


def put(uploads: Uploads, rows: Rows, dense: Mapping[str, Tensor]) -> Uploads:
    """Uploads with other rows and dense tensors."""
    return replace(uploads, rows={**uploads.rows, ITEMS: rows}, dense=dense)


def place(at: Tensor, rows: Rows) -> Tensor:
    """Each row's sender as a position in ``at``."""
    return torch.searchsorted(at, rows.sender)


def mean_norm(rows: Rows, clients: int) -> Tensor:
    """The mean length of each client's rows, (clients,)."""
    count = torch.bincount(rows.sender, minlength=clients).clamp_min(1)
    total = rows.value.new_zeros(clients)
    return total.index_add_(0, rows.sender, rows.value.norm(dim=1)) / count


def drawn(like: Tensor, clients: Tensor, turn: Turn, name: str) -> Tensor:
    """Standard normal draws, each client's of its own."""
    found = torch.empty_like(like)
    turn.stream.of(name).normal(clients, list(found))
    return found


@dataclass(frozen=True)
class Cell:
    """One run: HR@10 at its end, ER@10 of the target, seconds; None: it diverged."""

    rule: str
    forged: str
    hit: float | None
    exposed: float | None = None
    server_seconds: float | None = None
    failure: str = ""


@dataclass(frozen=True)
class Study:
    """What all runs of a study have in common."""

    world: World
    method: Ranker
    sampling: Sampling
    rounds: int
    corrupted: Tensor
    target: int
    times: float
    seed: int

    def cell(self, rule: str, forged: str) -> Cell:
        """Make one run."""
        kind = KINDS[forged]
        try:
            out = run(
                Setup(
                    self.world,
                    self.method,
                    choose("channel", rule).part,
                    ()
                    if kind is None
                    else (kind(self.corrupted, self.target, self.times),),
                    sampling=self.sampling,
                    protocol=Protocol(every=self.rounds),
                    rounds=self.rounds,
                    seed=self.seed,
                ),
                Machine(workers=1),
            )
        except PrivfedError as error:
            if error.exit_code != PrivfedError.exit_code:  # unusable settings
                raise
            return Cell(rule, forged, None, failure=str(error))
        costs = out.state.costs
        return Cell(
            rule,
            forged,
            out.state.log[-1]["utility.hr@10"],
            self.exposure(out),
            costs.server_seconds / costs.rounds,
        )

    def exposure(self, out: Outcome) -> float:
        """The share of honest clients, new to the target, that it is shown to."""
        world = self.world
        honest = world.eligible[~torch.isin(world.eligible, self.corrupted)]
        own = cohort_of(world, honest)
        score = self.method.score(out.state.model, out.state.private, own).clone()
        pairs = world.train.of(honest)
        score[pairs.sender, pairs.item] = -torch.inf
        new = score[:, self.target].isfinite()
        top = score[new].topk(10, 1).indices
        return float((top == self.target).any(1).double().mean())

    def forgers(self) -> float:
        """Corrupted clients in a round, on average."""
        return self.share * len(self.corrupted)

    @property
    def share(self) -> float:
        """The share of all clients in a round."""
        everybody = len(self.world.eligible)
        if self.sampling.kind == "all":
            return 1.0
        return min(1.0, self.sampling.clients_per_round / everybody)

    def senders(self) -> Tensor:
        """Honest clients that send each item when all take part, (items,)."""
        seeds = Seeds(self.seed)
        model, private = self.method.init(self.world.shape, seeds("init"))
        own = cohort_of(self.world, self.world.eligible)
        now = Round(0, seeds("train", 0), seeds("once"))
        uploads = self.method.train(model, private, own, now).uploads
        rows = uploads.rows[ITEMS]
        honest = ~torch.isin(uploads.clients, self.corrupted)[rows.sender]
        return torch.bincount(rows.item[honest], minlength=self.world.shape.items)


@dataclass(frozen=True)
class Count:
    """Items of like popularity, and who sends them in a round."""

    interactions: str
    items: int
    honest: float  # median over the items of honest senders a round
    forged: float  # share of an item's senders that forgers are, median over the items
    beyond: float  # share of items at which that is more than rules are told
    outvoted: float  # share of items at which forgers are at least as many as others
    bare: float  # the same if only clients that interacted sent an item: no negatives


def counts(study: Study, told: float) -> Iterator[Count]:
    """Senders by how many interactions an item has."""
    popular = study.world.popularity
    honest = study.senders() * study.share
    forgers = study.forgers()
    for low, high in BINS:
        some = (popular >= low) & (popular <= high)
        if not some.any():
            continue
        here = honest[some].double()
        yield Count(
            f"{low} or more" if high > 10**8 else f"{low} to {high}",
            int(some.sum()),
            float(here.median()),
            float((forgers / (here + forgers)).median()),
            float((forgers > told * (here + forgers)).double().mean()),
            float((here <= forgers).double().mean()),
            float((popular[some] * study.share <= forgers).double().mean()),
        )


def specs(told: float) -> Iterator[str]:
    """Every rule in both forms."""
    for rule in RULES:
        if rule == "plain":
            yield rule
            continue
        name, _, tail = rule.partition(":")
        settings = [tail] if tail else []
        settings += [f"malicious={told:g}"] if name in TOLD else []
        for per in ("item", "upload"):
            yield f"{name}:{','.join([*settings, f'per={per}'])}"


def coldest(world: World, interactions: int) -> int:
    """The first item with at most so many training interactions, and at least one."""
    popular = world.popularity
    some = ((popular >= 1) & (popular <= interactions)).nonzero()[:, 0]
    if not len(some):
        raise SettingsError(f"no item has 1 to {interactions} interactions")
    return int(some[popular[some].argmax()])


@click.command(help=__doc__)
@click.option("--method", default="bpr", show_default=True, help="A ranker's spec.")
@click.option("--data", default="demo", show_default=True, help="Name or path.")
@click.option("--rounds", default=100, show_default=True)
@click.option("--clients-per-round", default=256, show_default=True)
@click.option("--corrupted", default=0.05, show_default=True, help="Share of clients.")
@click.option("--told", default=0.1, show_default=True, help="Share rules assume.")
@click.option("--cold", default=10, show_default=True, help="Target's interactions.")
@click.option("--times", default=30.0, show_default=True, help="Length of noise.")
@click.option("--forged", "kinds", default=tuple(KINDS), multiple=True)
@click.option("--rule", "rules", multiple=True, help="Only these; default all.")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
def main(
    method: str,
    data: str,
    rounds: int,
    clients_per_round: int,
    corrupted: float,
    told: float,
    cold: int,
    times: float,
    kinds: Sequence[str],
    rules: Sequence[str],
    seed: int,
    as_json: bool,
) -> None:
    """Make every run and print two tables."""
    world = load(DataSettings(data=data), "ranking").world
    few = clients_per_round < len(world.eligible)
    study = Study(
        world,
        choose("method", method).part,
        Sampling("uniform", clients_per_round) if few else Sampling(),
        rounds,
        liars(world, corrupted, seed),
        coldest(world, cold),
        times,
        seed,
    )
    cells = []
    for rule in rules or specs(told):
        for forged in kinds:
            cell = study.cell(rule, forged)
            click.echo(f"{rule}, {forged}: HR@10 {number(cell.hit)}", err=True)
            cells.append(cell)
    rows = list(counts(study, told))
    if as_json:
        told_all = {"runs": [asdict(c) for c in cells], "counts": [*map(asdict, rows)]}
        click.echo(json.dumps(told_all, indent=2))
        return
    show(study, cells, rows, told, f"{method} on {data}, {rounds} rounds")


def liars(world: World, share: float, seed: int) -> Tensor:
    """The corrupted clients, drawn once."""
    rng = Seeds(seed)("corrupted").generator()
    order = torch.randperm(len(world.eligible), generator=rng)
    return world.eligible[order[: round(share * len(order))]].sort().values


def show(
    study: Study,
    cells: Sequence[Cell],
    rows: Sequence[Count],
    told: float,
    heading: str,
) -> None:
    """Print both tables."""
    console = Console(highlight=False, soft_wrap=True)
    kinds = list(dict.fromkeys(cell.forged for cell in cells))
    console.print(
        f"{heading}; {len(study.corrupted)} corrupted clients, "
        f"{study.forgers():.1f} in a round; rules are told {told:g}\n"
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("rule", no_wrap=True)
    table.add_column("over", no_wrap=True)
    heads = ["ER@10\n" + kind for kind in kinds if kind in ("none", "push")]
    for name in [*("HR@10\n" + kind for kind in kinds), *heads, "server\ns/round"]:
        table.add_column(name, justify="right", no_wrap=True)
    for rule in dict.fromkeys(cell.rule for cell in cells):
        mine = {cell.forged: cell for cell in cells if cell.rule == rule}
        exposed = [mine[kind].exposed for kind in kinds if kind in ("none", "push")]
        table.add_row(
            *words(rule),
            *(number(mine[kind].hit) for kind in kinds),
            *map(number, exposed),
            number(mine[kinds[0]].server_seconds),
        )
    console.print(table)
    popular = int(study.world.popularity[study.target])
    honest = float(study.senders()[study.target] * study.share)
    console.print(
        f"\ntarget {study.target}: {popular} interactions, {honest:.1f} honest "
        f"senders a round\n"
    )
    table = Table(box=None, pad_edge=False)
    heads = [
        "interactions",
        "items",
        "honest\nsenders\na round",
        "forgers'\nshare of\nsenders",
        f"items at\nwhich it is\nabove {told:g}",
        "items at\nwhich it is\none half",
        "and if no\nnegatives\nare sent",
    ]
    for name in heads:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        shares = (f"{x:.0%}" for x in (row.forged, row.beyond, row.outvoted, row.bare))
        table.add_row(row.interactions, str(row.items), f"{row.honest:.1f}", *shares)
    console.print(table)


def words(rule: str) -> tuple[str, str]:
    """A rule's name, and what it votes over."""
    name, _, tail = rule.partition(":")
    settings = dict(pair.split("=") for pair in tail.split(",") if pair)
    drop = " (farthest)" if settings.get("drop") == "farthest" else ""
    over = {"item": "items", "upload": "uploads"}.get(settings.get("per", ""), "")
    return name + drop, over


def number(value: float | None) -> str:
    """A figure, or what there is in its place."""
    return "diverged" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
