"""A lower bound on epsilon from one run with many canaries.

Steinke, Nasr and Jagielski, Privacy Auditing with One (1) Training Run, NeurIPS 2023:
each canary is in or out by a fair coin; whoever audits guesses which, or abstains. More
right guesses than an (epsilon, delta)-private mechanism allows refute that epsilon.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

_ENOUGH = 60.0  # above it no audit of ours can tell
_WIDTH = 1e-7


@dataclass(frozen=True)
class Guesses:
    """``correct`` of ``made`` guesses were right, about ``canaries`` coin flips."""

    canaries: int
    made: int
    correct: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.made <= self.canaries:
            raise ValueError(
                "give 0 <= correct <= made <= canaries, not "
                f"{self.correct}, {self.made}, {self.canaries}"
            )

    def p_value(self, epsilon: float, delta: float) -> float:
        """The chance of so many right guesses under (epsilon, delta), at most.

        Theorem 5.2 in the form of the paper's appendix D.
        """
        right = 1 / (1 + math.exp(-epsilon))
        tail = float(binom.sf(self.correct - 1, self.made, right))
        if not delta or not self.correct:
            return min(1.0, tail)
        fewer = np.arange(1, self.correct + 1)
        below = binom.cdf(self.correct - 1, self.made, right)
        between = below - binom.cdf(self.correct - 1 - fewer, self.made, right)
        most = float((between / fewer).max())
        return min(1.0, tail + 2 * self.canaries * delta * most)

    def epsilon(self, delta: float, confidence: float = 0.95) -> float:
        """The largest epsilon that these guesses refute; 0 where they refute none.

        Guessing rules must be fixed before the canaries are looked at. Raises
        ValueError for an impossible delta or confidence.
        """
        if not 0 <= delta < 1 or not 0 < confidence < 1:
            raise ValueError(
                f"delta and confidence must be chances, got {delta} and {confidence}"
            )
        low, high = 0.0, _ENOUGH
        if self.p_value(low, delta) >= 1 - confidence:
            return 0.0
        while high - low > _WIDTH:
            middle = (low + high) / 2
            refuted = self.p_value(middle, delta) < 1 - confidence
            low, high = (middle, high) if refuted else (low, middle)
        return low
