"""An epsilon, and Opacus' accountants as a second opinion on it.

Opacus' GDP accountant is absent: it reports less than was spent.
"""

import math
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Literal


@dataclass(frozen=True)
class Sampled:
    """Gaussian sums over Poisson samples; ``noise`` over what one record adds."""

    noise: float
    rate: float
    steps: int


@dataclass(frozen=True)
class Epsilon:
    """An upper bound of what was spent, and two other accountants' word on it."""

    value: float
    delta: float
    accountant: str
    sampled: Sampled | None = None  # what Opacus can look at

    @cached_property
    def rdp(self) -> float | None:
        """Opacus' RDP bound; None where its fixed orders do not reach."""
        return self._opacus("RDPAccountant")

    @cached_property
    def prv(self) -> float | None:
        """Opacus' PRV bound; None where its grid fails, as at full sampling."""
        return self._opacus("PRVAccountant")

    def _opacus(self, name: Literal["RDPAccountant", "PRVAccountant"]) -> float | None:
        if self.sampled is None:
            return None
        from opacus import accountants

        accountant = getattr(accountants, name)()
        one = self.sampled
        accountant.history = [(one.noise, one.rate, one.steps)]
        with warnings.catch_warnings():
            # it warns where its figure is no longer to be relied on
            warnings.simplefilter("error")
            try:
                value = float(accountant.get_epsilon(delta=self.delta))
            except (Warning, ArithmeticError, ValueError, RuntimeError, MemoryError):
                return None
        return value if math.isfinite(value) else None
