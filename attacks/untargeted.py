"""What each untargeted poisoner costs honest clients, by what the server does.

Federated BPR (width 32, rate 0.02, first vectors 0.05, rows cut to 1) on
MovieLens-100K, everybody in each of 20 rounds, and 5 % more clients that are malicious.
HR@10 among 99 sampled negatives, of honest clients, after the last round. A drop is
against the same seed and server without malicious clients. Medians and ranges of seeds.

    python attacks/untargeted.py

takes ten minutes on one core. ``--kept FILE`` keeps finished runs and goes on from
there. Of the claims, the first two are what sparse aggregation predicts (Zhang et al.,
AAAI 2025, of rows of any length), the others that attacks made to pass a median or a
trimmed mean do. What counts as a drop, 0.1 and within 0.02, is ours.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import click
from claims import Claim, tell
from degraded import DIVERGED, Figures, Spread, finished
from rich.console import Console
from rich.table import Table

from privfed.choices import choose
from privfed.data.load import DataSettings, load
from privfed.data.world import World
from privfed.evaluation.protocol import Protocol
from privfed.party import Party
from privfed.rounds import Setup

METHOD = "bpr:learning_rate=0.02,start_size=0.05"
ROUNDS, SHARE = 20, 0.05
NOBODY = "nobody"
SERVERS = ("plain", "median", "trimmed_mean", "norm_bound")
OMNISCIENT = ("spattack_od", "spattack_os", "little_is_enough", "inner_product")
BLIND = (
    "spattack_ld",
    "spattack_ls",
    "cluster_attack",
    "fedattack",
    "label_flip",
    "sign_flip",
    "gaussian_upload",
)
HR = "hr@10"
Runs = Mapping[tuple[str, str, int], Figures]


@click.command(help=__doc__)
@click.option("--data", default="ml-100k", show_default=True)
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--share", default=SHARE, show_default=True)
@click.option("--kept", type=click.Path(path_type=Path), help="Finished runs.")
@click.option("--json", "as_json", is_flag=True, help="Print figures as JSON.")
def main(data: str, seeds: int, share: float, kept: Path | None, as_json: bool) -> None:
    """Run every cell, print the table and the claims."""
    world = load(DataSettings(data, features=())).world
    cells = [
        (server, attack, seed)
        for seed in range(seeds)
        for server in SERVERS
        for attack in (NOBODY, *OMNISCIENT, *BLIND)
    ]
    names = {" ".join([data, f"{share:g}", *map(str, c)]): c for c in cells}
    setups = {name: partial(setup, world, share, *c) for name, c in names.items()}
    found = finished(setups, kept, _told)
    runs = {cell: found[name] for name, cell in names.items()}
    if as_json:
        rows = [dict(zip(("server", "attack", "seed"), c, strict=True)) for c in cells]
        click.echo(
            json.dumps([{**row, **runs[c]} for row, c in zip(rows, cells, strict=True)])
        )
        return
    Console(width=150).print(table(runs, seeds), highlight=False)
    tell([*claims(runs, seeds)])


def _told(line: str) -> None:
    click.echo(line, err=True)


def setup(world: World, share: float, server: str, attack: str, seed: int) -> Setup:
    """One run."""
    party = None
    if attack != NOBODY:
        party = Party(poisoner=choose("poisoner", attack).part, share=share)
    return Setup(
        world,
        choose("method", METHOD).part,
        choose("channel", server).part,
        protocol=Protocol(every=ROUNDS),
        rounds=ROUNDS,
        seed=seed,
        party=party,
    )


def hit(figures: Figures) -> float:
    """HR@10; 0 where the run diverged, for then nobody is served."""
    return 0.0 if figures == DIVERGED else figures[HR]


def drops(runs: Runs, server: str, attack: str, seeds: int) -> Spread:
    """How much HR@10 an attack takes, by seed."""
    return Spread(
        [
            hit(runs[server, NOBODY, seed]) - hit(runs[server, attack, seed])
            for seed in range(seeds)
        ]
    )


def table(runs: Runs, seeds: int) -> Table:
    """One attack a row, one server a column."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("HR@10, and what an attack takes of it")
    for server in SERVERS:
        shown.add_column(server, justify="right", no_wrap=True)
    best = [
        Spread([hit(runs[server, NOBODY, seed]) for seed in range(seeds)])
        for server in SERVERS
    ]
    shown.add_row(NOBODY, *map(str, best), end_section=True)
    for attack in (*OMNISCIENT, *BLIND):
        cells = [str(drops(runs, server, attack, seeds)) for server in SERVERS]
        told = " (omniscient)" if attack in OMNISCIENT else ""
        shown.add_row(attack + told, *cells)
    return shown


def claims(runs: Runs, seeds: int) -> Iterator[Claim]:
    """Orderings of medians."""

    def drop(server: str, attack: str) -> float:
        return drops(runs, server, attack, seeds).middle

    def worst(attack: str, servers: Sequence[str]) -> float:
        return min(drop(server, attack) for server in servers)

    robust = SERVERS[1:]
    sparse = "Zhang et al., AAAI 2025"
    ours = worst("spattack_od", robust)
    yield Claim("spattack_od: drop under every rule", 0.1, ours, 0, sparse, "at least")
    ours = worst("spattack_ld", robust)
    yield Claim("spattack_ld: drop under every rule", 0.1, ours, 0, sparse, "at least")
    made_for = {
        "little_is_enough": "Baruch et al., NeurIPS 2019",
        "inner_product": "Xie et al., UAI 2019",
    }
    for attack, source in made_for.items():
        for server in ("median", "trimmed_mean"):
            ours, bare = drop(server, attack), drop("plain", attack)
            name = f"{attack}: drop under {server}, as under none"
            yield Claim(name, bare, ours, 0.02, source, "at least")


if __name__ == "__main__":
    main()
