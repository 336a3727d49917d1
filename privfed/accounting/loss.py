"""Epsilon from privacy loss distributions, on a grid as fine as it must be.

The distributions are those of dp-accounting, discretized pessimistically (Doroshenko
et al., PoPETs 2022): every figure is an upper bound.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from privfed.accounting.gaussian import EXACT, gaussian_epsilon
from privfed.accounting.noise import SMALLEST
from privfed.accounting.witness import Epsilon, Sampled

PLD = "PLD (dp-accounting)"

Relation = Literal["add_or_remove", "replace_one"]

_GRIDS = (1e-2, 1e-3, 1e-4, 1e-5)  # widths of the loss grid, coarse to fine
_PRECISION = 1e-3  # relative error at which a grid is fine enough
_POINTS = 2_000_000  # a finer grid than this many points takes too long


def moved(relation: Relation) -> int:
    """How far neighbors move a sum to which each record adds a vector of length 1."""
    return 2 if relation == "replace_one" else 1


@lru_cache(maxsize=1024)
def sampled_epsilon(
    of: Sampled, delta: float, relation: Relation = "add_or_remove"
) -> Epsilon:
    """Epsilon of Gaussian sums over Poisson samples: the better of two bounds."""
    sensitivity = moved(relation) * math.sqrt(of.steps)
    whole = gaussian_epsilon(sensitivity, of.noise, delta)  # as if all were looked at
    witnessed = of if relation == "add_or_remove" else None
    if of.rate == 1.0 or of.noise < SMALLEST * moved(relation):
        return Epsilon(whole, delta, EXACT, witnessed)
    value = _sampled(of, delta, relation)
    if value >= whole:
        return Epsilon(whole, delta, EXACT, witnessed)
    return Epsilon(value, delta, PLD, witnessed)


def _sampled(of: Sampled, delta: float, relation: Relation) -> float:
    def one(width: float) -> Any:
        from dp_accounting.pld import privacy_loss_distribution
        from dp_accounting.privacy_accountant import NeighboringRelation

        return privacy_loss_distribution.from_gaussian_mechanism(
            of.noise,
            value_discretization_interval=width,
            sampling_prob=of.rate,
            neighboring_relation=(
                NeighboringRelation.REPLACE_ONE
                if relation == "replace_one"
                else NeighboringRelation.ADD_OR_REMOVE_ONE
            ),
        )

    ratio = moved(relation) / of.noise
    reach = ratio**2 + 10 * ratio  # a step's loss lies between about minus it and it
    return _refined(one, reach, of.steps, delta)


@lru_cache(maxsize=1024)
def repeated(epsilon: float, slack: float, times: int, delta: float) -> float:
    """Epsilon of any mechanisms that are (epsilon, slack)-private each, in a row.

    The optimal composition of Kairouz, Oh and Viswanath (ICML 2015); infinite where
    the slacks alone exceed delta.
    """
    from dp_accounting.pld import common, privacy_loss_distribution

    each = common.DifferentialPrivacyParameters(epsilon, slack)
    # the loss is either epsilon or minus it, so a grid of that width rounds nothing
    one = privacy_loss_distribution.from_privacy_parameters(each, epsilon)
    optimal = _at(one.self_compose(times), delta)
    return min(optimal, times * epsilon) if times * slack <= delta else optimal


def _refined(
    one: Callable[[float], Any], reach: float, steps: int, delta: float
) -> float:
    """Refine the grid until its pessimism is small beside epsilon.

    Every grid gives an upper bound; its excess falls with the square of its width,
    so a tenfold finer one has a hundredth of the excess.
    """
    last = math.inf
    for width in _GRIDS:
        if last < math.inf and max(reach, last) / width > _POINTS:
            break
        value = min(last, _at(one(width).self_compose(steps), delta))
        if last - value <= 100 * _PRECISION * value:
            return value
        last = value
    return last


def _at(loss: Any, delta: float) -> float:
    """Epsilon of a privacy loss distribution at a delta.

    It divides by masses that may be next to nothing: the quotient is then infinite,
    which is what it should be compared as.
    """
    with np.errstate(over="ignore"):
        return float(loss.get_epsilon_for_delta(delta))
