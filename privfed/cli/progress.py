"""The live line of a run, on stderr."""

from collections.abc import Callable, Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from privfed.report.words import metric

Report = Callable[[int, float, int, Mapping[str, float]], None]


class Line:
    """A context manager that gives a callback ``(seed, round, rounds, figures)``.

    ``round`` counts the rounds done, and parts of one.
    """

    def __init__(self, seed: int, seeds: int, console: Console | None = None) -> None:
        self._range = range(seed, seed + seeds)
        self._tasks: dict[int, TaskID] = {}
        self._known: dict[int, dict[str, float]] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console or Console(stderr=True),
        )

    def __enter__(self) -> Report:
        return self._report

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._tasks:
            return  # nothing was begun, so nothing is shown
        self._progress.stop()
        if not self._progress.console.is_terminal:
            self._progress.console.print()  # the last line has no end of its own there

    def _report(
        self, seed: int, round: float, rounds: int, figures: Mapping[str, float]
    ) -> None:
        self._progress.start()  # does nothing from the second time on
        if seed not in self._tasks:
            many = len(self._range) > 1
            words = f"seed {seed} of {self._range[-1]}" if many else "rounds"
            self._tasks[seed] = self._progress.add_task(words, total=rounds, figures="")
            self._known[seed] = {}
        known = self._known[seed]
        known |= figures  # utility is not measured in every round
        self._progress.update(
            self._tasks[seed], completed=round, total=rounds, figures=_brief(known)
        )


def _brief(figures: Mapping[str, float]) -> str:
    """The loss and the first figure of utility, short."""
    utility = [name for name in figures if name.startswith("utility.")][:1]
    told = [name for name in ("loss", *utility) if name in figures]
    return "  ".join(f"{metric(name)} {figures[name]:.4g}" for name in told)
