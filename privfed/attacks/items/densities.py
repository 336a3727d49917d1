"""Densities of the few numbers that tell of a row, fitted to examples.

Student's t in place of LiRA's normal: a client's rows are not independent, and under a
normal density a single odd one would decide what all of them are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import lgamma, log, pi

import torch
from torch import Tensor

_RIDGE = 1e-3  # of each variance: a direction without any spread has no density
_FREEDOM = 4.0
_LEAST = 1e-4  # variance, for numbers whose unit is what is usual


@dataclass(frozen=True, eq=False)
class Student:
    """A multivariate t of four degrees of freedom, by its mean and covariance."""

    mean: Tensor  # (d,) float64
    factor: Tensor  # (d, d) lower: the covariance is factor factor'

    @classmethod
    def fit(cls, examples: Tensor) -> "Student":
        """To examples (n, d); with no more than d of them, along each axis alone.

        Without any it is one around zero.
        """
        x = examples.double()
        if not len(x):
            return cls(x.new_zeros(x.shape[1]), torch.eye(x.shape[1]).double())
        mean = x.mean(0)
        apart = x - mean
        spread = apart.square().mean(0)
        covariance = apart.T @ apart / len(x)
        if len(x) <= x.shape[1]:
            covariance = torch.diag(spread)
        covariance = covariance + torch.diag(_RIDGE * spread + _LEAST)
        return cls(mean, torch.linalg.cholesky(covariance))

    def log_density(self, x: Tensor) -> Tensor:
        """Of points (n, d), (n,)."""
        apart = (x.double() - self.mean).T
        scaled = torch.linalg.solve_triangular(self.factor, apart, upper=False)
        d = len(self.mean)
        far = (scaled.square().sum(0) / (_FREEDOM - 2)).log1p()
        size = lgamma(_FREEDOM / 2) - lgamma((_FREEDOM + d) / 2)
        size += log(pi * (_FREEDOM - 2)) * d / 2
        size += float(self.factor.diagonal().log().sum())
        found: Tensor = -far * (_FREEDOM + d) / 2 - size
        return found


@dataclass(frozen=True, eq=False)
class Blend:
    """A weighted sum of densities."""

    parts: Sequence[Student]
    weights: Sequence[float]  # positive

    @classmethod
    def fit(cls, groups: Sequence[Tensor]) -> "Blend":
        """To groups of examples (n, d), each its own part; empty ones are left out."""
        full = [group for group in groups if len(group)] or [groups[0]]
        total = sum(max(len(group), 1) for group in full)
        parts = [Student.fit(group) for group in full]
        return cls(parts, [max(len(group), 1) / total for group in full])

    def log_density(self, x: Tensor) -> Tensor:
        """Of points (n, d), (n,)."""
        each = [
            part.log_density(x) + log(weight)
            for part, weight in zip(self.parts, self.weights, strict=True)
        ]
        return torch.stack(each).logsumexp(0)
