"""A stand-in for the experiment: it records what it is asked and answers at once."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType

import pytest

from privfed.config import RunSettings
from privfed.result import Figure, Result

Progress = Callable[[int, int, int, Mapping[str, float]], None]


def result(**changes: object) -> Result:
    """A result with one figure."""
    given: dict[str, object] = {
        "id": "0a1b2c",
        "method": "fedavg",
        "defenses": (),
        "attacks": (),
        "data": {"name": "demo", "clients": 3, "items": 5, "interactions": 1200},
        "protocol": "99 sampled negatives",
        "seeds": (0,),
        "figures": {"utility.hr@10": Figure(0.25)},
    }
    return Result(**(given | changes))  # type: ignore[arg-type]


@dataclass
class Experiment:
    """What was asked, and what to answer with."""

    answer: Result | BaseException = field(default_factory=result)
    asked: list[tuple[RunSettings, bool]] = field(default_factory=list)

    def execute(
        self, settings: RunSettings, resume: bool, progress: Progress
    ) -> Result:
        self.asked.append((settings, resume))
        progress(settings.seed, 1, 2, {"loss": 0.5})
        progress(settings.seed, 2, 2, {"loss": 0.4, "utility.hr@10": 0.25})
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    @property
    def settings(self) -> RunSettings:
        return self.asked[-1][0]


def install(monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """Put a stand-in where the command line looks for the experiment."""
    stand_in = Experiment()
    module = ModuleType("privfed.experiment")
    module.execute = stand_in.execute  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "privfed.experiment", module)
    return stand_in
