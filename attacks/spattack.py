"""Spattack: do a few clients stop a recommender that averages item by item?

The setting of its released code (github.com/zhongjian-zhang/Spattack, Zhang et al.,
AAAI 2025): federated BPR (width 32, rate 0.01, decay 0.1, rows of any length) on
MovieLens-100K; everybody in every round; an item's row moves by what a rule makes of
the rows of the item's senders, not times their number; malicious clients are 1, 5, 10
and 15 % of all. HR and NDCG among 99 sampled negatives, of honest clients, after the
last round.

Rules: the mean, the median, the trimmed mean (as many rows farthest from the median as
there are malicious clients), Krum, and the mean of rows cut to norm 1; ``sum`` adds the
rows up, as FedRecAttack's server does, at the same rate. Sampled rows (O-S, L-S) go
with mean, median and norm alone, as in the code. Rows of L-S: as many as the honest
client that sends most.

    python attacks/spattack.py

The published cells could not be read. What is checked is what the paper says of them:
the attack beats every rule. A run without malicious clients is beside each. Differences
from the code: our split (the last item by time is tested, the one before it validates)
and fixed sampled negatives; where an item has fewer honest senders than malicious ones,
our trimmed mean drops all but one row, the code's nothing that is a number.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import torch
from claims import Claim, tell
from degraded import DIVERGED, Figures, finished
from rich.console import Console
from rich.table import Table

from privfed.channels.plain import Plain
from privfed.channels.robust.rules import Krum, Median, NormBound, TrimmedMean
from privfed.data.load import DataSettings, load
from privfed.data.world import World
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import Channel, State
from privfed.messages import Total
from privfed.methods.bpr import BPR
from privfed.party import Party
from privfed.poisoners.untargeted.made_up import Degrader
from privfed.poisoners.untargeted.spattack import (
    SpattackLD,
    SpattackLS,
    SpattackOD,
    SpattackOS,
)
from privfed.rounds import Setup

ITEMS, RATE = "items", 0.01
SHARES = {1: 0.010101, 5: 0.052631, 10: 0.111111, 15: 0.176470}  # of the honest ones
RULES = ("sum", "mean", "median", "trimmed", "krum", "norm")
FULL = ("O-D", "L-D")
SAMPLED = ("O-S", "L-S")
WITH_SAMPLED = ("mean", "median", "norm")
KEYS = ("hr@5", "hr@10", "ndcg@5", "ndcg@10")
Cell = tuple[str, str, int, int]  # rule, attack, percent, seed


@dataclass(frozen=True)
class Averaged(BPR):
    """Federated BPR whose server takes each row's mean over the item's senders."""

    def apply(self, model: State, total: Total) -> State:
        if ITEMS not in total.tables:
            return model
        senders = total.senders[ITEMS].clamp_min(1)[:, None]
        return {**model, ITEMS: model[ITEMS] + total.tables[ITEMS] / senders}


@click.command(help=__doc__)
@click.option("--data", default="ml-100k", show_default=True)
@click.option("--rounds", default=200, show_default=True)
@click.option("--rules", default=",".join(RULES), show_default=True)
@click.option("--percents", default="1,5,10,15", show_default=True)
@click.option("--attacks", default=",".join((*FULL, *SAMPLED)), show_default=True)
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1))
@click.option("--kept", type=click.Path(path_type=Path), help="Finished runs.")
@click.option("--json", "as_json", is_flag=True, help="Print figures as JSON.")
def main(
    data: str,
    rounds: int,
    rules: str,
    percents: str,
    attacks: str,
    seeds: int,
    kept: Path | None,
    as_json: bool,
) -> None:
    """Run every cell, print the table and the claims."""
    world = load(DataSettings(data, features=())).world
    cells = [
        (rule, attack, percent, seed)
        for seed in range(seeds)
        for rule in rules.split(",")
        for attack, percent in _attacks(rule, attacks.split(","), percents)
    ]
    named = {" ".join([data, f"{rounds}", *map(str, cell)]): cell for cell in cells}
    setups = {name: partial(setup, world, rounds, c) for name, c in named.items()}
    found = finished(setups, kept, lambda line: click.echo(line, err=True))
    runs = {cell: found[name] for name, cell in named.items()}
    if as_json:
        rows = [
            {**dict(zip(("rule", "attack", "percent", "seed"), c, strict=True)), **f}
            for c, f in runs.items()
        ]
        click.echo(json.dumps(rows))
        return
    Console(width=110).print(table(runs), highlight=False)
    tell([*claims(runs)])


def _attacks(rule: str, attacks: list[str], percents: str) -> Iterator[tuple[str, int]]:
    yield "none", 0
    for attack in attacks:
        if attack in FULL or rule in WITH_SAMPLED:
            yield from ((attack, int(percent)) for percent in percents.split(","))


def setup(world: World, rounds: int, cell: Cell) -> Setup:
    """One run."""
    rule, attack, percent, seed = cell
    share = SHARES.get(percent, 0.0)
    party = None
    if attack != "none":
        party = Party(poisoner=_poisoner(attack, world), share=share)
    liars = int(len(world.eligible) * share)
    settings = BPR if rule == "sum" else Averaged
    return Setup(
        world,
        settings(learning_rate=RATE, clip=1e9),
        _channel(rule, liars),
        protocol=Protocol(at=(10, 5), every=rounds),
        rounds=rounds,
        seed=seed,
        party=party,
    )


def _poisoner(attack: str, world: World) -> Degrader:
    most = 2 * int(world.train.counts.max())  # positives, and a negative for each
    made: Mapping[str, Degrader] = {
        "O-D": SpattackOD(),
        "O-S": SpattackOS(),
        "L-D": SpattackLD(),
        "L-S": SpattackLS(rows=most),
    }
    return made[attack]


def _channel(rule: str, liars: int) -> Channel:
    if rule in ("sum", "mean"):
        return Plain()
    made: Mapping[str, Channel] = {
        "median": Median("item"),
        "trimmed": TrimmedMean("item", liars, "farthest"),
        "krum": Krum("item", liars, "n-f-2", "plain"),
        "norm": NormBound("item", RATE),
    }
    return made[rule]


def table(runs: Mapping[Cell, Figures]) -> Table:
    """One rule and attack a row, one figure and share a column; of the first seed."""
    percents = sorted({percent for _, _, percent, _ in runs if percent})
    shown = Table(box=None, pad_edge=False)
    shown.add_column("rule")
    shown.add_column("attack")
    shown.add_column("figure")
    shown.add_column("nobody", justify="right")
    for percent in percents:
        shown.add_column(f"{percent} %", justify="right")
    pairs = {(rule, attack): None for rule, attack, _, _ in runs if attack != "none"}
    for rule, attack in pairs:
        for key in KEYS:
            base = runs[rule, "none", 0, 0]
            cells = [runs.get((rule, attack, p, 0)) for p in percents]
            figures = [_shown(cell, key) for cell in (base, *cells)]
            shown.add_row(rule, attack, key, *figures)
    return shown


def _shown(figures: Figures | None, key: str) -> str:
    if figures is None:
        return ""
    return "diverged" if figures == DIVERGED else f"{figures[key]:.3f}"


def claims(runs: Mapping[Cell, Figures]) -> Iterator[Claim]:
    """How much of HR@10 above chance each attack leaves, by rule and share."""
    source = "Zhang et al., AAAI 2025"
    for (rule, attack, percent, seed), figures in runs.items():
        if attack not in FULL or rule == "sum" or percent < 5 or seed:
            continue
        before = runs[rule, "none", 0, 0]["hr@10"]
        left = (figures.get("hr@10", 0.1) - 0.1) / (before - 0.1)
        name = f"{rule}, {attack}, {percent} %: share of HR@10 over chance left"
        yield Claim(name, 0.5, left, 0, source, "at most")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
