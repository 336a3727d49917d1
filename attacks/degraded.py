"""Runs with malicious clients that degrade; a finished one is not made again."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from privfed.errors import PrivfedError
from privfed.machine import Machine
from privfed.rounds import Setup, run

Figures = Mapping[str, float]
DIVERGED: Figures = {}  # of a run that ended in numbers that are none


def finished(
    setups: Mapping[str, Callable[[], Setup]],
    path: Path | None,
    told: Callable[[str], None],
) -> dict[str, Figures]:
    """What every run measured in its last round, by key; kept in ``path``, JSON lines.

    Utility is of honest clients. Figures of the last round, for a round chosen on
    validation data would be one from before the attack took hold.
    """
    known = _kept(path)
    for number, (key, setup) in enumerate(setups.items(), 1):
        if key in known:
            continue
        known[key] = _last(setup())
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"run": key, "figures": known[key]}) + "\n")
        told(f"{number}/{len(setups)} {key}")
    return {key: known[key] for key in setups}


def _last(setup: Setup) -> Figures:
    try:
        row = run(setup, Machine(workers=1)).state.log[-1]
    except PrivfedError as error:
        if "diverged" not in str(error):
            raise
        return DIVERGED
    keys = [key for key in row if key.startswith("utility.")]
    return {key.removeprefix("utility."): row[key] for key in keys}


def _kept(path: Path | None) -> dict[str, Figures]:
    """The finished runs of a file; the last line of a stopped script may be cut."""
    known: dict[str, Figures] = {}
    if path is None or not path.exists():
        return known
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        known[row["run"]] = row["figures"]
    return known


@dataclass(frozen=True)
class Spread:
    """The median of some figures, and their range."""

    values: Sequence[float]

    @property
    def middle(self) -> float:
        return median(self.values)

    def __str__(self) -> str:
        low, high = min(self.values), max(self.values)
        if low == high:
            return f"{self.middle:.3f}"
        return f"{self.middle:.3f} ({low:.3f} to {high:.3f})"
