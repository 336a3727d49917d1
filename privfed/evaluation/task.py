"""What a run is judged by."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from privfed.data.cohort import Cohort
from privfed.data.world import Pairs, Ragged, World
from privfed.evaluation.exposure import Exposure
from privfed.evaluation.marks import Marks
from privfed.interfaces import Method, State
from privfed.metrics.score import Score

SCORED = 512  # clients measured at a time, at most
BYTES = 2**28


class Task(ABC):
    """A task made ready for one world.

    ``select`` is the figure by which validation chooses the round that is reported;
    ``higher`` says that more of it is better.
    """

    world: World
    exposure: Exposure | None
    select: str
    higher: ClassVar[bool]

    def held(self) -> Mapping[str, Ragged]:
        """The pairs that are measured, by the name of what is measured of them."""
        pairs = {"validation": self.world.validation, "test": self.world.test}
        return {**pairs, **(self.exposure.held() if self.exposure else {})}

    @abstractmethod
    def describe(self) -> str:
        """The words that a table puts beside its figures."""

    @abstractmethod
    def measure(
        self, model: State, private: State, cohort: Cohort
    ) -> Mapping[str, Tensor]:
        """What ``Marks`` holds of a cohort's pairs, by the names of ``held``."""

    @abstractmethod
    def scores(self, marks: Marks) -> Mapping[str, Score]:
        """Figures by name."""

    @abstractmethod
    def references(self) -> Mapping[str, Marks]:
        """What predictors that need no model reach on the test pairs, by name."""

    @abstractmethod
    def chunks(self) -> Sequence[Tensor]:
        """Clients with held-out pairs, as many at once as fit in little memory.

        The size follows from method and world alone: no result depends on memory.
        """


class PairTask(Task):
    """A task in which each held-out pair is predicted by itself."""

    @abstractmethod
    def marks(
        self, model: State, private: State, cohort: Cohort, pairs: Pairs
    ) -> Tensor:
        """What ``Marks`` holds of some pairs of a cohort."""

    def measure(
        self, model: State, private: State, cohort: Cohort
    ) -> Mapping[str, Tensor]:
        held = {"validation": self.world.validation, "test": self.world.test}
        found = {
            name: self.marks(model, private, cohort, pairs.of(cohort.clients))
            for name, pairs in held.items()
        }
        if self.exposure:
            table = self.table(model, private, cohort)
            found |= self.exposure.measure(table, cohort)
        return found

    def table(self, model: State, private: State, cohort: Cohort) -> Tensor:
        """Every item's prediction for a cohort, (clients, items)."""
        raise NotImplementedError(f"{type(self).__name__} ranks no items")


def by_pairs(marks: Marks, value: Callable[[Tensor], Tensor]) -> Score:
    """A mean over pairs of a function of their marks."""
    position, mark, clients = marks.measured()
    none = torch.zeros(clients, dtype=torch.float64)
    total = none.index_add(0, position, value(mark).double())
    return Score(total, torch.bincount(position, minlength=clients))


def split(task: Task, method: Method, positives: int) -> Sequence[Tensor]:
    """Clients with pairs to measure, cut by what one of so many positives needs."""
    size = BYTES // method.footprint(task.world.shape, positives)
    held = torch.stack([pairs.counts for pairs in task.held().values()]).sum(0)
    return torch.split(held.nonzero()[:, 0], max(1, min(SCORED, size)))


def whole(held: Ragged, value: Tensor) -> Marks:
    """Marks of a whole population's pairs."""
    return Marks(value.double(), held)
