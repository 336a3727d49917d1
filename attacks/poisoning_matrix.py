"""The matrix of poisoning: every attack on a target item, under every defense.

    python attacks/poisoning_matrix.py --data ml-100k
    python attacks/poisoning_matrix.py --attack pieck_uea --defense none --seeds 1

Each cell is one run for each seed, which draws another target too: malicious clients
join the population and promote one item, and the tables say in how many honest clients'
top ten it stands at the end (ER@10) and what is left of the recommendations (HR@10, 99
sampled negatives): the median, and the range where it varies. "diverged" is a run that
an attack left without a model. average_attack is not there: where nothing is rated it
is random_attack. All rules vote item by item and are told twice the share of malicious
clients that there is. user_dp trains as its own study does, everybody in every round;
mf_frs, regula and mf_bound are PIECK's recommender without a defense, with PIECK's own
and with norm_bound. Compare each with its own undefended column. Two more tables say of
rules that pick how many of the malicious clients' votes they did not keep (recall), and
how much of what they did not keep was malicious (precision). secagg runs only where it
is named: its sums are those of no defense, and it takes fifty times as long. Last come
the verdicts on what was expected; one that does not hold is exit code 1.

A finished run is kept in --out, JSON lines, and not made again: a stopped matrix goes
on, and more seeds can be added.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import click
from at_hand import at_hand
from claims import Claim, tell
from poisoned_cells import NOBODY, Cell, Found, Spread, made
from rich import box
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """A defense, and the training that goes with it."""

    defense: str = "plain"
    method: str = "bpr"
    epochs: int = 30
    cohort: int = 256  # clients in a round; 0: everybody


DEFENSES: Mapping[str, Row] = {
    "none": Row(),
    "median": Row("median"),
    "trimmed_mean": Row("trimmed_mean:malicious=0.1"),
    "krum": Row("krum:malicious=0.1"),
    "multi_krum": Row("multi_krum:malicious=0.1"),
    "bulyan": Row("bulyan:malicious=0.1"),
    "norm_bound": Row("norm_bound"),
    "secagg": Row("secagg"),
    "width_8": Row("plain", "bpr:width=8,start_size=0.1", 40, 0),
    "user_dp": Row("user_dp:clip=0.012,epsilon=8", "bpr:width=8,start_size=0.1", 40, 0),
    "mf_frs": Row("plain", "mf_frs", 150),
    "regula": Row("regula", "mf_frs", 150),
    "mf_bound": Row("norm_bound", "mf_frs", 150),
}
SLOW = "secagg"
VOTES = ("median", "trimmed_mean", "krum", "multi_krum", "bulyan")
ATTACKS = (
    "fedrecattack",
    "a_ra",
    "a_hum",
    "pipattack",
    "pieck_ipe",
    "pieck_uea",
    "explicit_boosting",
    "random_attack",
    "bandwagon",
    "popular_attack",
    "segment",
)


@click.command(help=__doc__)
@click.option("--data", default=at_hand, help="Name or path.  [default: ml-100k]")
@click.option("--defense", "defenses", multiple=True, type=click.Choice([*DEFENSES]))
@click.option("--attack", "attacks", multiple=True, help="[default: every one]")
@click.option("--malicious", default=0.05, show_default=True, help="Share of clients.")
@click.option("--target", default="tail", show_default=True)
@click.option("--seeds", default=5, show_default=True)
@click.option("--jobs", default=os.cpu_count() or 1, show_default="cores")
@click.option(
    "--out",
    default=Path("runs/poisoning_matrix.jsonl"),
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
)
@click.option("--json", "as_json", is_flag=True, help="Print all runs as JSON.")
def main(
    data: str,
    defenses: Sequence[str],
    attacks: Sequence[str],
    malicious: float,
    target: str,
    seeds: int,
    jobs: int,
    out: Path,
    as_json: bool,
) -> None:
    """Make the runs that are missing, and print the tables."""
    rows = {name: DEFENSES[name] for name in defenses or DEFENSES}
    if not defenses:
        del rows[SLOW]
    names = (NOBODY, *(attacks or ATTACKS))

    def cells(row: Row, attack: str) -> list[Cell]:
        more = (malicious, target, row.epochs, row.cohort)
        return [
            Cell(data, row.method, row.defense, attack, *more, seed)
            for seed in range(seeds)
        ]

    grid = {(d, a): cells(row, a) for d, row in rows.items() for a in names}
    # seed by seed, so that a stopped matrix is whole for the first ones
    asked = [one[seed] for seed in range(seeds) for one in grid.values()]
    found = made(asked, out, jobs, _tell)
    told = {key: [found[cell] for cell in one] for key, one in grid.items()}
    if as_json:
        each = [{**asdict(cell), **asdict(found[cell])} for cell in asked]
        click.echo(json.dumps(each, indent=2))
        return
    for heading, table in _tables(told, [*rows], names):
        console = Console(width=40 + 22 * len(rows))
        console.print(f"\n{heading}\n", table, sep="\n", highlight=False)
    for reason in dict.fromkeys(one.reason for all_ in told.values() for one in all_):
        if reason:
            click.echo(f"-: {reason}")
    if claims := [*_claims(told)]:
        click.echo()
        tell(claims)


def _tell(number: int, of: int, cell: Cell) -> None:
    words = f"{cell.defense} {cell.method} {cell.attack} seed {cell.seed}"
    click.echo(f"{number} of {of}: {words}", err=True)


Told = Mapping[tuple[str, str], Sequence[Found]]


def _claims(told: Told) -> Iterator[Claim]:
    """What earlier work and earlier figures lead to expect, where it was run."""
    ours = {key: Spread.of([one.er for one in found]) for key, found in told.items()}
    for defense, attack in product(VOTES, ("fedrecattack", "pieck_uea")):
        if found := ours.get((defense, attack)):
            words = f"{defense} leaves {attack} an ER@10"
            source = "Zhang et al., ICDE 2024: votes do not help; 0.5 is ours"
            yield Claim(words, 0.5, found.middle, 0, source, "at least")
    for attack in ("random_attack", "bandwagon", "popular_attack"):
        if found := ours.get(("none", attack)):
            source = "the project's earlier figures: 0.0005 to 0.0032"
            words = f"ER@10 of {attack}"
            yield Claim(words, 0.0, found.middle, 0.01, source, "at most")
    for attack in ("pieck_uea", "pieck_ipe"):
        if found := ours.get(("regula", attack)):
            source = "Zhang et al., ICDE 2024: 0.0000, 0.0125; redone 0.108, 0.044"
            words = f"ER@10 of {attack} under regula"
            yield Claim(words, 0.0, found.middle, 0.12, source, "at most")


def _tables(
    told: Told, defenses: Sequence[str], attacks: Sequence[str]
) -> Iterator[tuple[str, Table]]:
    yield "ER@10 of the target", _table(told, defenses, attacks, lambda one: one.er)
    yield "HR@10", _table(told, defenses, attacks, lambda one: one.hr)
    picks = [
        d
        for d in defenses
        if any(one.recall is not None for a in attacks for one in told[d, a])
    ]
    if picks:
        heading = "Malicious votes not kept (recall)"
        yield heading, _table(told, picks, attacks[1:], lambda one: one.recall)
        heading = "Malicious among the votes not kept (precision)"
        yield heading, _table(told, picks, attacks[1:], lambda one: one.precision)


def _table(
    told: Told,
    defenses: Sequence[str],
    attacks: Sequence[str],
    figure: Callable[[Found], float | None],
) -> Table:
    table = Table(box=box.MARKDOWN)
    table.add_column("attack", no_wrap=True)
    for name in defenses:
        table.add_column(name, justify="right", no_wrap=True)
    for attack in attacks:
        table.add_row(attack, *(_words(told[d, attack], figure) for d in defenses))
    return table


def _words(found: Sequence[Found], figure: Callable[[Found], float | None]) -> str:
    spread = Spread.of([figure(one) for one in found])
    lost = sum("diverged" in one.reason for one in found)
    words = [str(spread)] if spread else []
    words += ["diverged" if lost == len(found) else f"{lost} diverged"] if lost else []
    return ", ".join(words) or "-"


if __name__ == "__main__":
    main()
