"""Many runs with malicious clients, in processes; a finished one is not made again."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from statistics import median

from privfed.built_in import BUILT_IN
from privfed.choices import choose
from privfed.data.load import DataSettings, load
from privfed.data.world import Task, World
from privfed.errors import PrivfedError
from privfed.evaluation.protocol import Protocol
from privfed.machine import Machine
from privfed.party import Party
from privfed.rounds import Outcome, Setup, run
from privfed.sampling import Sampling

NOBODY = "nobody"  # the attack of a run without malicious clients
# Large tensors come and go; handing their memory back each time is half of the time.
_KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}


@dataclass(frozen=True)
class Cell:
    """One run: all that its figures depend on.

    Everybody takes part once an epoch, in rounds of ``cohort`` clients; with 0 in one.
    ``share`` is of the honest clients; where it is less than one of them it is one.
    """

    data: str
    method: str
    defense: str
    attack: str
    share: float
    target: str
    epochs: int
    cohort: int
    seed: int


@dataclass(frozen=True)
class Found:
    """What a run ended with; ``reason`` says why there was none.

    ``precision`` and ``recall`` are of the votes that a rule did not keep.
    """

    er: float | None = None  # ER@10 of the target
    hr: float | None = None  # HR@10 of honest clients
    honest_rows: float | None = None  # for the target in a round
    malicious_rows: float | None = None
    precision: float | None = None
    recall: float | None = None
    seconds: float = 0.0
    reason: str = ""
    rmse: float | None = None  # of honest clients, where ratings are predicted


@dataclass(frozen=True)
class Spread:
    """Median and range of one figure over seeds."""

    middle: float
    low: float
    high: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float | None]) -> "Spread | None":
        """Of the runs that have the figure; None where none has."""
        some = [value for value in values if value is not None]
        if not some:
            return None
        return cls(median(some), min(some), max(some), len(some))

    def __str__(self) -> str:
        low, high = f"{self.low:.2f}", f"{self.high:.2f}"
        range_ = "" if low == high else f" ({low}-{high})"
        return f"{self.middle:.3f}{range_}"


def made(
    cells: Sequence[Cell],
    path: Path,
    jobs: int,
    told: Callable[[int, int, Cell], None],
) -> Mapping[Cell, Found]:
    """Runs cells that ``path``, JSON lines, does not hold yet, and adds them to it."""
    known = kept(path)
    missing = [cell for cell in cells if cell not in known]
    os.environ.update(_KEPT)
    path.parent.mkdir(parents=True, exist_ok=True)
    context = get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as crew:
        waiting = {crew.submit(_found, cell): cell for cell in missing}
        for number, done in enumerate(as_completed(waiting), 1):
            cell, found = waiting[done], done.result()
            known[cell] = found
            with path.open("a", encoding="utf-8") as file:
                line = {"cell": asdict(cell), "found": asdict(found)}
                file.write(json.dumps(line, allow_nan=False) + "\n")
            told(number, len(missing), cell)
    return known


def kept(path: Path) -> dict[Cell, Found]:
    """The finished cells of a file; the last line of a stopped run may be cut."""
    known = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        known[Cell(**row["cell"])] = Found(**row["found"])
    return known


def _found(cell: Cell) -> Found:
    """One run, in a process of its own."""
    import torch

    torch.set_num_threads(1)
    import time

    start = time.process_time()
    try:
        setup = _setup(cell)
        outcome = run(setup, Machine(workers=1))
    except PrivfedError as error:
        return Found(reason=str(error), seconds=time.process_time() - start)
    return _figures(outcome, time.process_time() - start)


@cache
def _world(data: str, task: Task) -> World:
    return load(DataSettings(data=data), task).world


def _setup(cell: Cell) -> Setup:
    method = choose("method", cell.method).part
    world = _world(cell.data, method.task)
    honest = len(world.eligible)
    nobody = cell.attack == NOBODY
    share = 0.0 if nobody else max(cell.share, 1 / honest)
    attack = "random_attack" if nobody else cell.attack
    party = Party(
        poisoner=choose("poisoner", attack).part, share=share, target=cell.target
    )
    carried = cell.defense.partition(":")[0] in BUILT_IN["channel"]
    everybody = honest + party.count(world)
    cohort = min(cell.cohort or everybody, everybody)
    rounds = cell.epochs * -(-everybody // cohort)
    return Setup(
        world,
        method,
        choose("channel", cell.defense if carried else "plain").part,
        () if carried else (choose("defense", cell.defense).part,),
        sampling=Sampling("epoch", cohort) if cohort < everybody else Sampling(),
        protocol=Protocol(every=rounds),
        rounds=rounds,
        seed=cell.seed,
        party=party,
    )


def _figures(outcome: Outcome, seconds: float) -> Found:
    last, traffic = outcome.state.log[-1], outcome.state.traffic
    rounds, dropped = max(1, traffic.rounds), traffic.dropped
    bad = traffic.malicious_dropped
    return Found(
        last["hijack.er@10"],
        last.get("utility.hr@10"),
        traffic.honest_rows / rounds,
        traffic.malicious_rows / rounds,
        bad / dropped if dropped else None,
        bad / traffic.malicious_cast if traffic.malicious_cast and dropped else None,
        seconds,
        rmse=last.get("utility.rmse"),
    )
