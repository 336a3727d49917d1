"""Processor seconds of an epoch under FedRecAttack, beside the official code.

    python benchmarks/fedrecattack.py --official CHECKOUT
    python benchmarks/fedrecattack.py --official CHECKOUT --malicious 0 --turns 5 --json

CHECKOUT is a copy of github.com/rdz98/FedRecAttack, which runs unchanged. Both train
943 clients of federated BPR and 47 malicious ones on its MovieLens-100K files, 256
clients a round, 4 rounds an epoch, and after every epoch measure HR@10 among 99
sampled items and ER@5, ER@10 and NDCG@10 of the target in the whole catalog.

The two take turns, each in a fresh process with one thread. Seconds are processor
seconds (user and system) of the whole process from the end of one evaluation to the
end of the next; each process's first epoch is left out. See README.md beside this file.
"""

import builtins
import json
import os
import re
import runpy
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table

from privfed.channels.plain import Plain
from privfed.data.load import DataSettings, load
from privfed.data.readers.adjacency import lists
from privfed.data.world import Ragged, World, ragged
from privfed.evaluation.protocol import Protocol
from privfed.machine import Machine
from privfed.methods.bpr import BPR
from privfed.party import Party
from privfed.poisoners.targeted.fedrecattack import FedRecAttack
from privfed.rounds import Setup, run
from privfed.sampling import Sampling

SIDES = ("official", "privfed")
COHORT, TARGET = 256, 894  # the item that the official seed draws
KEYS = ("utility.hr@10", "hijack.er@5", "hijack.er@10", "hijack.target_ndcg@10")
NAMES = ("HR@10", "ER@5", "ER@10", "NDCG@10")
_PRINTED = re.compile(r"Iteration \d+.*?\(([\d.]+)\) on test, \(([\d., ]+)\) on target")


@dataclass(frozen=True)
class Turn:
    """What one process measured."""

    side: str
    seconds: Sequence[float]  # of each epoch but the first
    figures: Sequence[float]  # HR@10, ER@5, ER@10, NDCG@10 after the last epoch


@click.command(help=__doc__)
@click.option("--official", required=True, help="The checkout.")
@click.option("--epochs", default=12, show_default=True, help="Of each turn.")
@click.option("--turns", default=3, show_default=True)
@click.option("--malicious", default=0.05, show_default=True, help="Of honest clients.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON row a turn.")
@click.option("--side", type=click.Choice(SIDES), hidden=True)
def main(
    official: str,
    epochs: int,
    turns: int,
    malicious: float,
    as_json: bool,
    side: str | None,
) -> None:
    """Take turns, and compare."""
    if not (Path(official) / "main.py").is_file():
        raise click.UsageError(f"--official: {official} has no main.py; clone it first")
    if epochs < 2:
        raise click.UsageError("--epochs: the first is left out; give 2 or more")
    if side is not None:
        measure = _official if side == "official" else _privfed
        torch.set_num_threads(1)
        print(json.dumps(asdict(measure(Path(official), epochs, malicious))))
        return
    told = []
    for _ in range(turns):
        for one in SIDES:
            words = ["--official", official, "--epochs", epochs, "--side", one]
            told.append(_in_a_process([*words, "--malicious", malicious]))
            if as_json:
                click.echo(json.dumps(asdict(told[-1])))
    if not as_json:
        Console().print(_table(told))


def _in_a_process(words: Sequence[object]) -> Turn:
    done = subprocess.run(
        [sys.executable, __file__, *map(str, words)],
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        text=True,
    )
    return Turn(**json.loads(done.stdout.splitlines()[-1]))


def _official(checkout: Path, epochs: int, malicious: float) -> Turn:
    """Run the official main.py here and read what it prints."""
    marks: list[float] = []
    figures: list[float] = []
    tell = builtins.print

    def listen(*words: object, **_: Any) -> None:
        found = _PRINTED.match(" ".join(map(str, words)))
        if found:
            marks.append(time.process_time())
            figures[:] = [float(x) for x in ",".join(found.groups()).split(",")]

    os.chdir(checkout)
    sys.path.insert(0, str(checkout))
    sys.argv = ["main.py", "--dataset", "ml-100k/", "--device", "cpu"]
    sys.argv += ["--epochs", str(epochs), "--clients_limit", str(malicious)]
    builtins.print = listen
    try:
        runpy.run_path("main.py", run_name="__main__")
    finally:
        builtins.print = tell
    seconds = [b - a for a, b in pairwise(marks)]  # the first mark is before training
    return Turn("official", seconds[1:], figures)


def _privfed(checkout: Path, epochs: int, malicious: float) -> Turn:
    """The same work here."""
    folder = checkout / "Data" / "ml-100k"
    world = load(DataSettings(str(folder), format="adjacency", features=())).world
    rounds = -(-int(world.shape.clients * (1 + malicious)) // COHORT)
    party = Party(
        poisoner=FedRecAttack(),
        share=malicious,
        target=str(TARGET),
        public=_public(folder, world),
    )
    setup = Setup(
        world,
        BPR(),
        Plain(),
        sampling=Sampling("epoch", COHORT),
        protocol=Protocol(every=rounds),
        rounds=rounds * epochs,
        party=party,
    )
    marks: list[float] = []

    def mark(_: float, __: int, figures: Mapping[str, float]) -> None:
        if figures:  # a round is over
            marks.append(time.process_time())

    done = run(setup, Machine(workers=1), progress=mark)
    ends = marks[rounds - 1 :: rounds]
    last = done.state.log[-1]
    seconds = [b - a for a, b in pairwise(ends)]
    return Turn("privfed", seconds, [last.get(key, 0.0) for key in KEYS])


def _public(folder: Path, world: World) -> Ragged:
    """The interactions that the official code takes for public."""
    frame = lists(folder / "train.part-1%.txt", users_may_be_empty=True)
    user, item = (torch.tensor(frame[name].to_numpy()) for name in ("user", "item"))
    return ragged(world.shape.clients, user, item, torch.ones(len(user)))


def _table(turns: Sequence[Turn]) -> Table:
    table = Table("code", "best", "median", "epochs", *NAMES)
    summary: dict[str, tuple[float, float]] = {}
    for side in SIDES:
        seconds = [s for turn in turns if turn.side == side for s in turn.seconds]
        last = [turn.figures for turn in turns if turn.side == side]
        summary[side] = best, middle = min(seconds), median(seconds)
        figures = [f"{median(values):.4f}" for values in zip(*last, strict=True)]
        times = f"{best * 1e3:.1f} ms", f"{middle * 1e3:.1f} ms"
        table.add_row(side, *times, str(len(seconds)), *figures)
    ratio = [a / b for a, b in zip(*(summary[side] for side in SIDES), strict=True)]
    table.add_row("ratio", *(f"{value:.1f}x" for value in ratio))
    return table


if __name__ == "__main__":
    main()
