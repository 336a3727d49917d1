"""Everything that a run needs to go on: one value, saved and restored whole."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from privfed import checkpoint
from privfed.evaluation.exposure import exposed
from privfed.evaluation.marks import Marks
from privfed.evaluation.task import Task
from privfed.interfaces import Rejected
from privfed.messages import Spent
from privfed.metrics.score import means


@dataclass
class Costs:
    """What the rounds so far took; seconds are processor seconds."""

    uploads: int = 0  # clients times rounds
    rounds: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    client_seconds: float = 0.0
    server_seconds: float = 0.0
    other: dict[str, float] = field(default_factory=dict)  # of other parties, by name
    attacks: dict[str, float] = field(default_factory=dict)  # seconds, by attack

    def add(self, spent: Spent) -> None:
        """Count what carrying one round's uploads took."""
        self.bytes_up += spent.bytes_up
        self.bytes_down += spent.bytes_down
        self.client_seconds += spent.client_seconds
        self.server_seconds += spent.server_seconds
        for name, value in spent.other.items():
            self.other[name] = self.other.get(name, 0.0) + value


@dataclass
class Traffic:
    """Whose rows for promoted items came, and whose votes a rule did not keep.

    Sums over the rounds so far.
    """

    rounds: int = 0
    honest_rows: int = 0
    malicious_rows: int = 0
    malicious_cast: int = 0  # votes, where a rule filters
    malicious_dropped: int = 0
    dropped: int = 0

    def filtered(self, rejected: Rejected, honest: int) -> None:
        """Count what a rule did not keep; the first ``honest`` clients are honest."""
        bad = rejected.clients >= honest
        self.malicious_cast += int(rejected.cast[bad].sum())
        self.malicious_dropped += int(rejected.dropped[bad].sum())
        self.dropped += int(rejected.dropped.sum())


@dataclass
class Best:
    """The round that validation chose, and how often it was missed since.

    ``value`` is the figure it was chosen by, its negative where less is better.
    """

    round: int = -1
    value: float = float("-inf")
    waited: int = 0  # evaluations without a better one


@dataclass
class RunState:
    """A run between two rounds."""

    model: Mapping[str, Tensor]
    private: dict[str, Tensor]
    memory: dict[str, Mapping[str, Tensor]]  # by attack
    kept: dict[str, Mapping[str, Tensor]]  # by defense
    marks: dict[str, Marks]  # as last measured, by what is measured
    best_test: Marks  # as of the round that validation chose
    took_part: Tensor  # (clients,) bool: in any round so far
    plotted: Mapping[str, Tensor] = field(default_factory=dict)  # of a poisoner
    next: int = 0
    best: Best = field(default_factory=Best)
    costs: Costs = field(default_factory=Costs)
    traffic: Traffic = field(default_factory=Traffic)
    log: list[dict[str, float]] = field(default_factory=list)

    def put(self, clients: Tensor, measured: Mapping[str, Tensor]) -> None:
        """Write down what was measured of some clients' pairs."""
        for name, value in measured.items():
            self.marks[name].put(clients, value)

    def judge(self, task: Task) -> dict[str, float]:
        """Compare with the best round so far, by validation; return the figures.

        Where there is nothing to validate on, the last round is the best.
        """
        validation = means([*task.scores(self.marks["validation"]).items()])
        test = means([*task.scores(self.marks["test"]).items()])
        hijack = means([*exposed(self.marks).items()])
        value = validation.get(task.select)
        value = (
            float(self.next) if value is None else value * (1 if task.higher else -1)
        )
        if value > self.best.value:
            self.best = Best(self.next, value)
            self.best_test.value.copy_(self.marks["test"].value)
        else:
            self.best.waited += 1
        found = {f"validation.{name}": value for name, value in validation.items()}
        found |= {f"utility.{name}": value for name, value in test.items()}
        return found | {f"hijack.{name}": value for name, value in hijack.items()}

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        marks = {name: marks.value for name, marks in self.marks.items()}
        tensors: dict[str, Any] = {
            "model": self.model,
            "private": self.private,
            "memory": self.memory,
            "kept": self.kept,
            "marks": {**marks, _BEST: self.best_test.value},
            "plotted": self.plotted,
            "rounds": {"took_part": self.took_part},
        }
        facts = {
            "next": self.next,
            "best": asdict(self.best),
            "costs": asdict(self.costs),
            "traffic": asdict(self.traffic),
            "log": self.log,
        }
        checkpoint.save(path, tensors, facts)

    def restore(self, path: Path, device: str) -> None:
        """Go back to a checkpoint of the same run."""
        tensors, facts = checkpoint.load(path)
        self.model = {n: v.to(device) for n, v in tensors["model"].items()}
        for name, value in tensors.get("private", {}).items():
            self.private[name].copy_(value)
        for part in (self.memory, self.kept):
            named = "memory" if part is self.memory else "kept"
            for name, there in tensors.get(named, {}).items():
                part[name] = {n: v.to(device) for n, v in there.items()}
        for name, value in tensors["marks"].items():
            marks = self.best_test if name == _BEST else self.marks[name]
            marks.value.copy_(value)
        self.plotted = {n: v.to(device) for n, v in tensors.get("plotted", {}).items()}
        self.took_part.copy_(tensors["rounds"]["took_part"])
        self.next, self.log = facts["next"], facts["log"]
        self.best, self.costs = Best(**facts["best"]), Costs(**facts["costs"])
        self.traffic = Traffic(**facts["traffic"])


_BEST = "best_test"
