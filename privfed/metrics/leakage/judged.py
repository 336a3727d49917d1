"""What a claim is worth: figures over clients, beside what the prior alone reaches."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from privfed.data.world import World
from privfed.interfaces import State
from privfed.metrics import intervals
from privfed.metrics.score import Score
from privfed.seeds import Stream

_RESAMPLES = 200  # a pooled figure is computed anew for each


@dataclass(frozen=True, eq=False)
class Truth:
    """What claims are compared with. No attack is handed any of it."""

    world: World
    model: State  # what the server holds in the end
    private: State  # what the devices keep then
    took_part: Tensor  # (clients,) bool


@dataclass(frozen=True, eq=False)
class Pooled:
    """A figure of some clients together that is no mean over them.

    ``statistic`` computes it from positions among the ``clients``, which may repeat.
    """

    clients: int
    statistic: Callable[[Tensor], float]

    def mean(self) -> float:
        """The figure over all clients."""
        return self.statistic(torch.arange(self.clients))

    def __len__(self) -> int:
        return self.clients

    def interval(self, draws: Stream) -> tuple[float, float]:
        """Percentile bootstrap over clients at 95 %, (low, high)."""
        rng = np.random.default_rng(draws.key & (2**64 - 1))
        drawn = rng.integers(self.clients, size=(_RESAMPLES, self.clients))
        found = [self.statistic(torch.from_numpy(one)) for one in drawn]
        low, high = np.nanquantile(found, [0.025, 0.975])
        return float(low), float(high)


Measure = Score | Pooled


@dataclass(frozen=True, eq=False)
class Judged:
    """The figures of one claim by name.

    ``floor`` holds those that the prior alone reaches on the same clients; ``lead``
    is the figure, more is better, whose advantage over the floor is reported.
    """

    scores: Mapping[str, Measure]
    floor: Mapping[str, Measure]
    lead: str

    def advantage(self) -> Measure:
        """By how much the claim beats the prior, on the same clients."""
        ours, theirs = self.scores[self.lead], self.floor[self.lead]
        if isinstance(ours, Score) and isinstance(theirs, Score):
            return Score(ours.each - theirs.each, torch.ones_like(ours.total))
        assert isinstance(ours, Pooled)
        assert isinstance(theirs, Pooled)
        return Pooled(
            ours.clients, lambda at: ours.statistic(at) - theirs.statistic(at)
        )


def interval(measure: Measure, draws: Stream) -> tuple[float, float]:
    """A bootstrap interval over clients; (nan, nan) where there are too few."""
    if isinstance(measure, Pooled):
        return measure.interval(draws)
    low, high = intervals.bootstrap(measure.total, draws, measure.count)
    return (low**0.5, high**0.5) if measure.root and low == low else (low, high)
