"""What does the sum of a cohort still tell, by the size of the cohort?

Secure aggregation and encryption show the server sums. ``sum_items`` and
``sum_ratings`` see these sums, how many clients are in each row, who took part, and the
model. First every client takes part once, in cohorts of one size; then cohorts are
drawn anew each round, as they are in practice, and go through secure aggregation.

    python attacks/sums.py

The data are MovieLens-100K where it is at hand (``privfed data get ml-100k``), else
the generated demo world. Claims compare with an earlier measurement of ours, of a
weaker attack that took a sum for one upload.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from at_hand import at_hand
from claims import Claim, tell
from rich.console import Console
from rich.table import Table

from privfed.cli.progress import Line
from privfed.config import run_settings
from privfed.data.load import load
from privfed.experiment import execute
from privfed.result import Result

SIZES = (1, 2, 5, 10, 50, 100, 0)  # 0: everybody
EARLIER = {2: 0.87, 5: 0.59, 10: 0.49}  # share of ratings within half a star
EARLIER_GAIN = {2: 0.124, 5: 0.102, 10: 0.077, 50: 0.035, 100: 0.022, 0: 0.012}
METHODS = ("fedmf", "bpr", "pfedrec")
CHANGING = ((10, 200), (50, 100))  # clients of a round, rounds
SOURCE = "an earlier measurement of ours"


@dataclass(frozen=True)
class Told:
    """What the sums of one run told."""

    result: Result

    def at(self, key: str) -> float:
        """A leakage figure."""
        return self.result.figures[f"leakage.{key}"].value

    def floor(self, key: str) -> float:
        """The same for the prior alone."""
        return self.result.references[f"leakage.{key}"]["prior"]

    @property
    def gain(self) -> float:
        """AUC of items over that of popularity."""
        return self.at("sum_items.auc") - self.floor("sum_items.auc")


@click.command(help=__doc__)
@click.option("--data", help="Name or path.  [default: ml-100k, else demo]")
@click.option("--workers", default=1, show_default=True)
@click.option(
    "--out",
    default=Path("runs/sums"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Run folders.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the claims as JSON.")
def main(data: str | None, workers: int, out: Path, as_json: bool) -> None:
    """Attack sums of cohorts of every size."""
    common = {
        "data": {"data": data or at_hand(), "features": []},
        "machine": {"workers": workers},
        "out": str(out),
        "protocol": {"every": 1_000_000},
    }
    clients = _clients(common)
    once = {
        (method, size): _once(common, method, size or clients, clients)
        for size in SIZES
        for method in METHODS
    }
    changing = {
        (method, size): _changing(common, method, size, rounds)
        for size, rounds in CHANGING
        for method in METHODS[:2]
    }
    if not as_json:
        console = Console()
        console.print(_heading(common, clients), highlight=False, soft_wrap=True)
        console.print(_table(once), highlight=False)
        console.print(_changing_table(changing), highlight=False)
    tell(_claims(once), as_json)


def _clients(common: dict[str, Any]) -> int:
    settings = run_settings({**common, "method": "fedmf", "attack": []}, {})
    return len(load(settings.data, "rating").world.eligible)


def _once(common: dict[str, Any], method: str, size: int, clients: int) -> Told:
    """Everybody takes part once, in cohorts of one size."""
    sampling = {"kind": "queue", "clients_per_round": size}
    rounds = -(-clients // size)
    if method == "fedmf":  # one step, as measured before
        method = "fedmf:steps=all"
    elif method == "pfedrec":  # its mean over fewer clients moves rows further
        method = f"pfedrec:item_rate={80 * size / clients}"
    return _run(common, method, sampling, rounds, [])


def _changing(common: dict[str, Any], method: str, size: int, rounds: int) -> Told:
    """Cohorts are drawn anew in every round; the server sees sums alone."""
    sampling = {"kind": "uniform", "clients_per_round": size}
    return _run(common, method, sampling, rounds, ["secagg"])


def _run(
    common: dict[str, Any],
    method: str,
    sampling: dict[str, Any],
    rounds: int,
    defenses: list[str],
) -> Told:
    attacks = ["sum_items"] + ["sum_ratings"] * method.startswith("fedmf")
    settings = run_settings(
        {
            **common,
            "method": method,
            "sampling": sampling,
            "rounds": rounds,
            "defense": defenses,
            "attack": attacks,
        },
        {},
    )
    click.echo(f"{method}, {sampling['clients_per_round']} a round", err=True)
    with Line(settings.seed, settings.seeds) as progress:
        return Told(execute(settings, True, progress))


def _heading(common: dict[str, Any], clients: int) -> str:
    return (
        f"Sums of {common['data']['data']}, {clients} clients. Ratings: share of all "
        "ratings that are claimed,\nand claimed within half a star; items: AUC.\n"
    )


def _table(once: dict[tuple[str, int], Told]) -> Table:
    table = Table(box=None, pad_edge=False, title="each client once")
    table.add_column("cohort")
    for name in ("ratings claimed", "within 1/2", "earlier", "fedmf", "bpr", "pfedrec"):
        table.add_column(name, justify="right", no_wrap=True)
    for size in SIZES:
        rated = once["fedmf", size]
        told = [rated.at(f"sum_ratings.{m}") for m in ("coverage", "within_half_star")]
        earlier = f"{EARLIER[size]:.2f}" if size in EARLIER else ""
        aucs = [once[method, size].at("sum_items.auc") for method in METHODS]
        cells = [f"{value:.3f}" for value in (*told, *aucs)]
        table.add_row(str(size or "all"), *cells[:2], earlier, *cells[2:])
    floors = [once[method, 0] for method in METHODS]
    blind = floors[0].floor("sum_ratings.within_half_star")
    popular = [f"{one.floor('sum_items.auc'):.3f}" for one in floors]
    table.add_row("prior alone", "", f"{blind:.3f}", "", *popular)
    return table


def _changing_table(changing: dict[tuple[str, int], Told]) -> Table:
    table = Table(box=None, pad_edge=False, title="new cohorts, secure aggregation")
    table.add_column("cohort")
    for name in ("rounds", "ratings exact", "users exact", "fedmf", "bpr"):
        table.add_column(name, justify="right", no_wrap=True)
    for size, rounds in CHANGING:
        rated = changing["fedmf", size]
        told = [rated.at(f"sum_ratings.{m}") for m in ("exact", "users_exact")]
        aucs = [changing[method, size].at("sum_items.auc") for method in METHODS[:2]]
        cells = [f"{value:.3f}" for value in (*told, *aucs)]
        table.add_row(str(size), str(rounds), *cells)
    return table


def _claims(once: dict[tuple[str, int], Told]) -> list[Claim]:
    found = [
        Claim(
            f"cohort of {size}: ratings within half a star",
            published,
            once["fedmf", size].at("sum_ratings.within_half_star"),
            0.02,
            SOURCE,
            "at least",
        )
        for size, published in EARLIER.items()
    ]
    found += [
        Claim(
            f"cohort of {size or 'all'}: item AUC over popularity",
            published,
            once["fedmf", size].gain,
            0.02,
            SOURCE,
        )
        for size, published in EARLIER_GAIN.items()
    ]
    upload = once["bpr", 1].at("sum_items.f1")
    found.append(Claim("cohort of 1, bpr: F1 is sign_pc's", 1.0, upload, 0.005, SOURCE))
    return found


if __name__ == "__main__":
    main()
