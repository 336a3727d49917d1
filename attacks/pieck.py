"""Does PIECK promote an unpopular item, and does Regula stop it? Its figures, again.

MF-FRS (``mf_frs``) on MovieLens-100K, everybody's last interaction held out, 300 epochs
in rounds of 256 clients, 5 % malicious clients: nobody malicious, PIECK-IPE, PIECK-UEA,
and both against Regula. ER@10 is the share of clients that never met the target and
have it in their top 10, HR@10 is among 99 sampled items.

Published are Tables X to XII of PIECK's supplement, one figure a cell. Every case is
run with two kinds of target: the one that the released code draws with its own seed
("its target": item 120 of u.item, which 67 users took), and one drawn anew for each
seed, nearly always an item that few took. A run is read at its end, and at the epoch of
the best HR@10 on test items: the released code, run as it is, ends below the published
figures and has them where HR@10 peaks, so that published figures are judged there, and
the end of a run by where the released code itself ends.

    python attacks/pieck.py

needs MovieLens-100K (``privfed data get ml-100k``) and takes some 15 minutes on one
core; ``--only`` measures a part. ``--variants`` measures what the figures rest on.
The authors' own lists of the same split are read by ``--data FOLDER --target 467``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import click
import torch
from claims import Claim, tell
from rich.console import Console
from rich.table import Table

from privfed.channels.plain import Plain
from privfed.data.load import DataSettings, load
from privfed.data.world import Ragged, World, ragged
from privfed.defenses.regula import Regula
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import Method
from privfed.machine import Machine
from privfed.methods.mf_frs import MFFRS
from privfed.party import Party
from privfed.poisoners.targeted.pieck import PIECKIPE, PIECKUEA
from privfed.poisoning import Poisoner
from privfed.rounds import Setup, run
from privfed.sampling import Sampling

EPOCHS, EVERY, COHORT, SHARE = 300, 10, 256, 0.05
IPE, UEA, NOBODY = "IPE", "UEA", "nobody"
SOURCE, AGAIN = "PIECK, supplement", "its released code, run"


@dataclass(frozen=True)
class Case:
    """Who attacks what behind which defense."""

    name: str
    poisoner: Poisoner
    share: float = SHARE
    guarded: bool = False
    method: Method = MFFRS()  # noqa: RUF009 - frozen


@dataclass(frozen=True)
class Seen:
    """What one run came to, by the epoch at which it is read."""

    positives: int  # training interactions of the target
    honest: float  # rows for the target, a round
    malicious: float
    er: Mapping[str, float]
    hr: Mapping[str, float]


CASES = (
    Case(NOBODY, PIECKIPE(), share=0.0),
    Case(IPE, PIECKIPE()),
    Case(UEA, PIECKUEA()),
    Case(f"{IPE} + Regula", PIECKIPE(), guarded=True),
    Case(f"{UEA} + Regula", PIECKUEA(), guarded=True),
)
VARIANTS = (
    Case("UEA, each batch once", PIECKUEA(repeats=0)),
    Case("IPE, BPR loss", PIECKIPE(), method=MFFRS(loss="bpr")),
    Case("UEA, BPR loss", PIECKUEA(), method=MFFRS(loss="bpr")),
    Case("nobody + Regula", PIECKIPE(), share=0.0, guarded=True),
    *(Case(f"IPE, {share:.0%}", PIECKIPE(), share) for share in (0.01, 0.03)),
    *(Case(f"UEA, {share:.0%}", PIECKUEA(), share) for share in (0.01, 0.03)),
)
PUBLISHED = {  # ER@10 and HR@10
    NOBODY: (0.0023, 0.5716),
    IPE: (0.8747, 0.5769),
    UEA: (0.9339, 0.5769),
    f"{IPE} + Regula": (0.0125, 0.5631),
    f"{UEA} + Regula": (0.0000, 0.5589),
}
RELEASED = {NOBODY: (0.0011, 0.5429), IPE: (0.8087, 0.5313), UEA: (0.8713, 0.5387)}
END, BEST = "end", "best"
ITS_TARGET, ANY = "its target", "any target"


@click.command(help=__doc__)
@click.option("--data", default="ml-100k", help="Data, split by time.")
@click.option("--target", default="119", help="The item that the released seed draws.")
@click.option("--seeds", default=5, help="Runs of each case.")
@click.option("--epochs", default=EPOCHS, help="Epochs of a run.")
@click.option("--variants", is_flag=True, help="Measure variants instead.")
@click.option("--only", multiple=True, help="Measure the cases of this name.")
@click.option("--json", "as_json", is_flag=True, help="Print the claims as JSON.")
def main(
    data: str,
    target: str,
    seeds: int,
    epochs: int,
    variants: bool,
    only: Sequence[str],
    as_json: bool,
) -> None:
    """Run every case with every seed, show them and judge the published figures."""
    world = whole(load(DataSettings(data, features=())).world)
    cases = [c for c in (VARIANTS if variants else CASES) if not only or c.name in only]
    found: dict[tuple[str, str], list[Seen]] = {}
    for kind, chosen in ((ITS_TARGET, target), (ANY, "random")):
        for case in cases:
            click.echo(f"{case.name}, {kind} ...", err=True)
            runs = [measured(world, case, chosen, k, epochs) for k in range(seeds)]
            found[case.name, kind] = runs
    Console(width=140, stderr=as_json).print(table(found), highlight=False)
    if not variants:
        tell([*claims(found)], as_json)


def whole(world: World) -> World:
    """The world with validation items back in training: only the last is held out."""
    if not len(world.validation.item):
        return world
    parts, clients = (world.train, world.validation), world.shape.clients
    train = ragged(
        clients,
        torch.cat([part.owner for part in parts]),
        torch.cat([part.item for part in parts]),
        torch.cat([part.label for part in parts]),
    )
    return replace(world, train=train, validation=nothing(clients))


def nothing(clients: int) -> Ragged:
    """No pairs of anybody."""
    none = torch.zeros(0, dtype=torch.int64)
    return ragged(clients, none, none, torch.zeros(0))


def measured(world: World, case: Case, target: str, seed: int, epochs: int) -> Seen:
    """One run, measured every tenth epoch."""
    party = Party(poisoner=case.poisoner, share=case.share, target=target)
    honest = len(world.eligible)
    rounds = -(-(honest + party.count(world)) // COHORT)
    setup = Setup(
        world,
        case.method,
        Plain(),
        [Regula()] if case.guarded else [],
        sampling=Sampling("epoch", COHORT),
        protocol=Protocol(every=EVERY * rounds),
        rounds=epochs * rounds,
        seed=seed,
        party=party,
    )
    done = run(setup, Machine(workers=1))
    log = [row for row in done.state.log if "hijack.er@10" in row]
    best = max(log, key=lambda row: row["utility.hr@10"])
    read = {END: log[-1], BEST: best}
    assert done.plot is not None
    item, traffic = int(done.plot.targets), done.state.traffic
    return Seen(
        int(world.popularity[item]),
        traffic.honest_rows / setup.rounds,
        traffic.malicious_rows / setup.rounds,
        {at: row["hijack.er@10"] for at, row in read.items()},
        {at: row["utility.hr@10"] for at, row in read.items()},
    )


def table(found: Mapping[tuple[str, str], Sequence[Seen]]) -> Table:
    """Medians and ranges over seeds, one case a row."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("")
    for heading in (
        "ER@10, end",
        "HR@10, end",
        "ER@10, best HR",
        "HR@10, best HR",
        "honest rows",
        "malicious",
        "positives",
    ):
        shown.add_column(heading, justify="right", no_wrap=True)
    for (name, kind), runs in found.items():
        figures = [
            value for at in (END, BEST) for value in (er(runs, at), hr(runs, at))
        ]
        rows = [[one.honest for one in runs], [one.malicious for one in runs]]
        cells = [spread(values, 3) for values in figures]
        cells += [spread(values, 1) for values in rows]
        cells += [spread([one.positives for one in runs], 0)]
        shown.add_row(f"{name}, {kind}", *cells)
    return shown


def er(runs: Sequence[Seen], at: str) -> list[float]:
    """ER@10 of every run, read so."""
    return [one.er[at] for one in runs]


def hr(runs: Sequence[Seen], at: str) -> list[float]:
    """HR@10 of every run, read so."""
    return [one.hr[at] for one in runs]


def spread(values: Sequence[float], digits: int) -> str:
    """Median and range."""
    low, middle, high = (
        f"{value:.{digits}f}" for value in (min(values), median(values), max(values))
    )
    return middle if low == high else f"{middle} ({low}..{high})"


def claims(found: Mapping[tuple[str, str], Sequence[Seen]]) -> Iterator[Claim]:
    """The published figures beside the medians, of the published target."""
    for (name, kind), runs in found.items():
        if kind != ITS_TARGET:
            continue
        read = [(BEST, PUBLISHED[name], SOURCE)]
        if name in RELEASED:
            read.append((END, RELEASED[name], AGAIN))
        for at, (exposed, hits), source in read:
            yield exposure(f"{name}, {at}", exposed, median(er(runs, at)), source)
            ours = median(hr(runs, at))
            yield Claim(f"{name}, {at}: HR@10", hits, ours, 0.04, source)


def exposure(name: str, published: float, ours: float, source: str) -> Claim:
    """An attack's ER@10 within 7 points; under Regula 0.12 at most."""
    if name.startswith(NOBODY):
        return Claim(f"{name}: ER@10", published, ours, 0.005, source)
    if "Regula" in name:
        room = 0.12 - published
        return Claim(f"{name}: ER@10", published, ours, room, source, "at most")
    return Claim(f"{name}: ER@10", published, ours, 0.07, source)


if __name__ == "__main__":
    main()
