"""Long work in batches, with a bar on stderr while somebody watches."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

Value = TypeVar("Value")


def batches(values: Sequence[Value], size: int, what: str) -> Iterator[Sequence[Value]]:
    """Consecutive slices of at most ``size`` values, in order."""
    console = Console(stderr=True)
    with Progress(
        console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=len(values))
        for start in range(0, len(values), size):
            batch = values[start : start + size]
            yield batch
            bar.advance(task, len(batch))
