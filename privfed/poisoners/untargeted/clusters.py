"""How many clusters ClusterAttack makes, adapted to how training answers.

Yu et al., Untargeted attack against federated recommendation systems via poisonous item
embeddings and the defense, AAAI 2023: a smoothed loss that keeps rising asks for more
clusters, one that keeps falling for fewer.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import isnan, nan, sqrt
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Bounds:
    """What the number of clusters moves in, and how fast.

    ``smoothing`` is the share of the average that stays. The number changes when rises
    outnumber falls, or falls rises, by ``patience``, which then grows by ``growth``.
    """

    least: int = 1
    most: int = 50
    smoothing: float = 0.999
    growth: float = 1.0


@dataclass(frozen=True)
class Adaptive:
    """The number of clusters, and what it has been seen to do."""

    clusters: float
    patience: float
    average: float = 0.0
    last: float = nan  # the average before, debiased
    steps: float = 0.0
    rises: float = 0.0
    falls: float = 0.0

    @classmethod
    def load(cls, memory: Mapping[str, Tensor]) -> Self:
        """From what ``saved`` returned."""
        return cls(**{name: float(value) for name, value in memory.items()})

    def saved(self) -> dict[str, Tensor]:
        """As tensors, exactly."""
        return {
            name: torch.tensor(value, dtype=torch.float64)
            for name, value in asdict(self).items()
        }

    def after(self, loss: float, bounds: Bounds) -> "Adaptive":
        """The number after a round in which the clusters had such a loss."""
        average = bounds.smoothing * self.average + (1 - bounds.smoothing) * loss
        steps = self.steps + 1
        debiased = average / (1 - bounds.smoothing**steps)
        known = not isnan(self.last)
        risen = known and debiased > self.last
        seen = replace(
            self,
            average=average,
            last=debiased,
            steps=steps,
            rises=self.rises + risen,
            falls=self.falls + (known and not risen),
        )
        return seen._settled(bounds)

    def _settled(self, bounds: Bounds) -> "Adaptive":
        now, lead = self.clusters, self.rises - self.falls
        if lead >= self.patience:
            more = min(round(now + sqrt(bounds.most - now)), bounds.most)
            return self._anew(more, bounds)
        if -lead >= self.patience:
            fewer = max(round(now - sqrt(now - bounds.least)), bounds.least)
            return self._anew(fewer, bounds)
        return self

    def _anew(self, clusters: int, bounds: Bounds) -> "Adaptive":
        return Adaptive(float(clusters), self.patience * (1 + bounds.growth))
