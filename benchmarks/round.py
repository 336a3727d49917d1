"""Seconds and peak memory of one round, beside official code doing the same work.

    python benchmarks/round.py
    python benchmarks/round.py --data ml-1m --rounds 1
    python benchmarks/round.py --data /folders/ku --only fedmr --json

Each case runs in a fresh process with one thread; seconds are processor seconds of
clients and server together, without evaluation. See README.md beside this file.
"""

import json
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import click
import torch

from privfed.config import run_settings
from privfed.data.load import DataSettings, load
from privfed.evaluation.protocol import Protocol
from privfed.machine import Machine
from privfed.rounds import Setup, run

_MIB = 2**20


@dataclass(frozen=True)
class Official:
    """Processor seconds of a training round of a paper's own code, its best one.

    One thread; the first on an Intel Xeon at 2.5 GHz (Cascade Lake), the second on
    an AMD EPYC at 2.6 GHz (Zen 5).
    """

    code: str
    xeon: float
    epyc: float


@dataclass(frozen=True)
class Case:
    """One configuration, and official code that does the same local work."""

    data: str
    method: str
    official: Official | None = None
    features: bool = False
    memory: int = 2 * 2**30


@dataclass(frozen=True)
class Row:
    """What one case took."""

    data: str
    method: str
    seconds: float  # best round
    median: float
    peak: float  # MiB resident, file-backed pages included
    anonymous: float | None  # MiB, where the system tells
    official: Official | None


def _fedmr(xeon: float, epyc: float) -> Official:
    return Official("FedMR-release f70b270", xeon, epyc)


# Settings of FedMR's paper and of FedRAP's code: 10 local epochs of large batches.
_PAPER = "epochs=10,batch=2048,item_rate=1,item_std=none"
_FEDRAP = f"{_PAPER},own_rate=1,apart=0.1,sparse=0.1,decay=0.97"
# The released code of FedMR runs 5 local epochs with 1 negative a positive.
_SAME = (
    "width=64,epochs=5,batch=2048,item_rate=1,item_std=none,"
    "negatives=1,negatives_pool=items_in_train"
)
CASES: Sequence[Case] = (
    Case("ml-100k", f"fedavg:{_PAPER}"),
    Case("ml-100k", f"fcf:{_PAPER}"),
    Case("ml-100k", f"fedncf:{_PAPER}"),
    Case("ml-100k", "pfedrec", Official("IJCAI-23-PFedRec abc2380", 13.8, 7.7)),
    Case(
        "ml-100k", f"fedrap:width=32,{_FEDRAP}", Official("FedRAP d6ee2ac", 105, 44.9)
    ),
    Case("ku", f"fedavg:{_SAME}", _fedmr(2.3, 0.50)),
    Case("ku", f"fcf:{_SAME}", _fedmr(2.5, 0.72)),
    Case("ku", f"fedncf:{_SAME}", _fedmr(5.1, 1.23)),
    Case("ku", f"pfedrec:{_SAME}", _fedmr(2.7, 1.51)),
    Case("ku", f"fedrap:{_SAME},own_rate=1,apart=0.1,sparse=0.1", _fedmr(2.6, 1.87)),
    Case("ku", "fedmr_release:backbone=fedavg", _fedmr(9.2, 2.71), True),
    Case("ku", "fedmr_release:backbone=fcf", _fedmr(7.3, 3.14), True),
    Case("ku", "fedmr_release:backbone=fedncf", _fedmr(10.9, 3.80), True),
    Case("ku", "fedmr_release:backbone=pfedrec", _fedmr(14.1, 3.18), True),
    Case("ku", "fedmr_release:backbone=fedrap", _fedmr(10.2, 3.90), True),
    Case("ml-1m", f"fedavg:{_PAPER}", memory=2**32),
    Case("ml-1m", f"fcf:{_PAPER}", memory=2**32),
    Case("ml-1m", f"fedncf:{_PAPER}", memory=2**32),
    Case("ml-1m", "pfedrec:width=64", memory=2**32),
    Case("ml-1m", f"fedrap:{_FEDRAP}", memory=2**32),
    *(
        Case("ml-1m", method, memory=2**32)
        for method in (
            "bpr",
            "fcf_original",
            "fedavg_neumf",
            "ditto",
            "cali3f",
            "fedncf_federeco",
            "fedmf",
            "fedrec",
            "metamf",
            "fedrec_maml",
            "fedmeta",
        )
    ),
    Case("ml-1m", "fedmr", features=True, memory=2**32),
)


@click.command()
@click.option("--data", multiple=True, default=("ml-100k", "ku"), show_default=True,
              help="Name or folder; the folder's last word is the name.")  # fmt: skip
@click.option("--only", default="", help="Cases whose method holds this word.")
@click.option("--rounds", default=5, show_default=True, help="Counted rounds.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON row a line.")
@click.option("--case", "number", type=int, hidden=True)
def main(
    data: tuple[str, ...], only: str, rounds: int, as_json: bool, number: int | None
) -> None:
    """Measure rounds of privfed beside official code."""
    if number is not None:
        click.echo(json.dumps(asdict(measure(CASES[number], data[0], rounds))))
        return
    for place in data:
        for k, case in enumerate(CASES):
            if case.data == Path(place).name and only in case.method:
                row = _in_a_fresh_process(k, place, rounds)
                click.echo(json.dumps(row) if as_json else _line(row))


def _in_a_fresh_process(number: int, place: str, rounds: int) -> dict[str, object]:
    words = ["--case", str(number), "--data", place, "--rounds", str(rounds)]
    done = subprocess.run(
        [sys.executable, __file__, *words], stdout=subprocess.PIPE, check=True
    )
    row: dict[str, object] = json.loads(done.stdout)
    return row


def measure(case: Case, place: str, rounds: int) -> Row:
    """Run one case here: a warm-up, the counted rounds, and one that evaluates."""
    torch.set_num_threads(1)
    features = ("auto",) if case.features else ()
    settings = run_settings({"method": case.method})
    task = settings.method.part.task
    world = load(DataSettings(place, features=features), task).world
    total = rounds + 2
    setup = Setup(
        world,
        settings.method.part,
        settings.channel.part,
        protocol=Protocol(every=total),
        rounds=total,
    )
    marks: list[float] = []

    def mark(_: float, __: int, figures: Mapping[str, float]) -> None:
        if figures:  # a round is over
            marks.append(time.process_time())

    anonymous = _watch_anonymous()
    run(setup, Machine(memory=case.memory, workers=1), progress=mark)
    took = sorted(b - a for a, b in pairwise(marks[:-1]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
    return Row(
        case.data,
        case.method,
        took[0],
        took[len(took) // 2],
        peak / _MIB,
        max(anonymous, default=None),
        case.official,
    )


def _watch_anonymous() -> Sequence[float]:
    """A list that a thread fills with the anonymous memory of this process, MiB."""
    seen: list[float] = []
    status = Path("/proc/self/status")

    def watch() -> None:
        while status.exists():
            [line] = [x for x in status.read_text().splitlines() if "RssAnon" in x]
            seen.append(int(line.split()[1]) / 1024)
            time.sleep(0.05)

    threading.Thread(target=watch, daemon=True).start()
    return seen


def _line(row: Mapping[str, object]) -> str:
    found = Row(**{**row, "official": None})  # type: ignore[arg-type]
    anonymous = "" if found.anonymous is None else f" ({found.anonymous:.0f} anonymous)"
    told = (
        f"{found.data:8} {found.method:62} {found.seconds:8.3f} s best "
        f"{found.median:8.3f} s median {found.peak:6.0f} MiB{anonymous}"
    )
    if row["official"] is None:
        return told
    other = Official(**row["official"])  # type: ignore[arg-type]
    xeon, epyc = other.xeon / found.seconds, other.epyc / found.seconds
    return (
        f"{told}  {other.code}: Xeon {other.xeon:g} s, {xeon:.0f}x; "
        f"EPYC {other.epyc:g} s, {epyc:.0f}x"
    )


if __name__ == "__main__":
    main()
