"""Normal densities of what few numbers tell about a row, fitted to examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, pi

import torch
from torch import Tensor

_RIDGE = 1e-3  # of each variance: a direction without any spread has no density
_LEAST = 1e-4  # variance, for numbers whose unit is what is usual


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A normal density in some dimensions."""

    mean: Tensor  # (d,) float64
    factor: Tensor  # (d, d) lower: the covariance is factor factor'

    @classmethod
    def fit(cls, examples: Tensor) -> "Gaussian":
        """To examples (n, d); with no more than d of them, along each axis alone."""
        x = examples.double()
        mean = x.mean(0)
        apart = x - mean
        spread = apart.square().mean(0)
        covariance = apart.T @ apart / max(len(x), 1)
        if len(x) <= x.shape[1]:
            covariance = torch.diag(spread)
        covariance = covariance + torch.diag(_RIDGE * spread + _LEAST)
        return cls(mean, torch.linalg.cholesky(covariance))

    def log_density(self, x: Tensor) -> Tensor:
        """Of points (n, d), (n,)."""
        apart = (x.double() - self.mean).T
        scaled = torch.linalg.solve_triangular(self.factor, apart, upper=False)
        size = log(2 * pi) * len(self.mean) / 2 + self.factor.diagonal().log().sum()
        return -scaled.square().sum(0) / 2 - size


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """A weighted sum of normal densities."""

    parts: Sequence[Gaussian]
    weights: Sequence[float]  # positive

    @classmethod
    def fit(cls, groups: Sequence[Tensor]) -> "GaussianMixture":
        """To groups of examples (n, d), each its own part; empty ones are left out."""
        full = [group for group in groups if len(group)]
        total = sum(len(group) for group in full)
        parts = [Gaussian.fit(group) for group in full]
        return cls(parts, [len(group) / total for group in full])

    def log_density(self, x: Tensor) -> Tensor:
        """Of points (n, d), (n,)."""
        each = [
            part.log_density(x) + log(weight)
            for part, weight in zip(self.parts, self.weights, strict=True)
        ]
        return torch.stack(each).logsumexp(0)
