"""What noised single uploads released, and what shuffling them hides.

Neighbors are any two uploads of one user, clipped to norm C, hence 2C apart.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from privfed.accounting.gaussian import EXACT, gaussian_epsilon
from privfed.accounting.loss import repeated
from privfed.accounting.noise import check_delta, check_target
from privfed.accounting.witness import Epsilon
from privfed.errors import SettingsError

OPTIMAL = "optimal composition of pure DP (PLD, dp-accounting)"
SHUFFLED = "shuffling, Feldman et al. 2021, theorem 3.1, then PLD (dp-accounting)"


@dataclass(frozen=True)
class GaussianUploads:
    """So many uploads of a user with Gaussian noise of ``noise`` times 2C."""

    noise: float
    times: int

    def epsilon(self, delta: float) -> Epsilon:
        """Of all uploads together."""
        value = gaussian_epsilon(math.sqrt(self.times), self.noise, delta)
        return Epsilon(value, delta, EXACT)

    def one(self, delta: float) -> float:
        """Epsilon of one upload, at the same delta."""
        return gaussian_epsilon(1.0, self.noise, delta)


@dataclass(frozen=True)
class LaplaceUploads:
    """So many uploads of a user with Laplace noise; ``each`` is one's pure epsilon.

    ``cohort`` is how many uploads are shuffled in a round; None where none are.
    """

    each: float
    times: int
    cohort: int | None = None

    def epsilon(self, delta: float) -> Epsilon:
        """Of all uploads together."""
        plain = pure_epsilon(self.each, self.times, delta)
        if self.cohort is None:
            return Epsilon(plain, delta, OPTIMAL)
        value = shuffled_epsilon(self.each, self.cohort, self.times, delta)
        return Epsilon(value, delta, SHUFFLED if value < plain else OPTIMAL)

    def one(self, delta: float) -> float:
        """Epsilon of one upload, whatever delta, before any shuffling."""
        return self.each

    def gains(self, delta: float) -> "LaplaceUploads":
        """The same; raises SettingsError where shuffling is not proven to help."""
        if self.cohort is not None and self.epsilon(delta).accountant != SHUFFLED:
            raise _in_vain(self.cohort, self.times, delta, self.each)
        return self


def shuffled(epsilon: float, clients: int, delta: float) -> float:
    """Epsilon of a shuffled cohort whose members are epsilon-private each.

    Feldman, McMillan and Talwar, Hiding Among the Clones, FOCS 2021, theorem 3.1, a
    closed form. Infinite where its condition fails.
    """
    if not allows(epsilon, clients, delta):
        return math.inf
    grown = math.exp(epsilon)
    wide = 8 * math.sqrt(grown * math.log(4 / delta) / clients) + 8 * grown / clients
    return math.log1p((grown - 1) / (grown + 1) * wide)


def allows(epsilon: float, clients: int, delta: float) -> bool:
    """Whether theorem 3.1 says anything: the local epsilon may not be too large."""
    return epsilon <= largest(clients, delta)


def largest(clients: int, delta: float) -> float:
    """The largest local epsilon that theorem 3.1 amplifies; may be negative."""
    return math.log(clients / (16 * math.log(2 / delta)))


def pure_epsilon(each: float, times: int, delta: float) -> float:
    """Epsilon of so many releases that are (each, 0)-private."""
    check_delta(delta)
    return repeated(each, 0.0, times, delta)


def shuffled_epsilon(each: float, clients: int, times: int, delta: float) -> float:
    """Epsilon of so many shuffled rounds, each of (each, 0)-private members.

    The better of two bounds: with the amplification, and without any.
    """
    check_delta(delta)
    slack = _slack(times, delta)
    one = shuffled(each, clients, slack)
    plain = repeated(each, 0.0, times, delta)
    return plain if one >= each else min(plain, repeated(one, slack, times, delta))


@lru_cache(maxsize=256)
def most_pure(target: float, times: int, delta: float) -> float:
    """The largest epsilon of each of so many releases that together meet a target."""
    check_target(target)
    check_delta(delta)
    return _most(lambda each: pure_epsilon(each, times, delta), target, target)


@lru_cache(maxsize=256)
def most_shuffled(target: float, clients: int, times: int, delta: float) -> float:
    """The largest local epsilon of each round where all rounds are shuffled.

    Raises SettingsError where the theorem's condition leaves it nothing to amplify.
    """
    alone = most_pure(target, times, delta)
    limit = largest(clients, _slack(times, delta))
    if alone >= limit:
        raise _in_vain(clients, times, delta, alone)
    high = min(limit, target)
    each = _most(lambda e: shuffled_epsilon(e, clients, times, delta), target, high)
    LaplaceUploads(each, times, clients).gains(delta)
    return each


def _in_vain(clients: int, times: int, delta: float, each: float) -> SettingsError:
    limit = max(largest(clients, _slack(times, delta)), 0)
    return SettingsError(
        f"shuffling {clients} uploads a round is not proven to help: each of them "
        f"spends epsilon {each:.2g} on its own, and the theorem amplifies {limit:.2g} "
        "at most, less with few clients; ask for a smaller epsilon, take more clients "
        "a round, or leave shuffle out"
    )


def _slack(times: int, delta: float) -> float:
    """The part of delta that the amplification of one round may use."""
    return delta / (2 * times)


def _most(spent: Callable[[float], float], target: float, high: float) -> float:
    """Bisect for the largest value that spends no more than a target."""
    if spent(high) <= target:
        return high
    low = 0.0
    while high - low > 1e-4 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) <= target else (low, middle)
    return low
