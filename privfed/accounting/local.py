"""What noised single uploads released, and what shuffling them hides.

Neighbors are any two uploads of one user, clipped to norm C, hence 2C apart.
"""

import math
from functools import lru_cache

from privfed.accounting.loss import repeated
from privfed.accounting.noise import check_delta, check_target
from privfed.errors import SettingsError

OPTIMAL = "optimal composition of pure DP (PLD, dp-accounting)"
SHUFFLED = "shuffling, Feldman et al. 2021, theorem 3.1, then PLD (dp-accounting)"

_SHARE = 0.1  # of delta that optimal composition keeps for itself


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
    slack = _SHARE * delta / times
    one = shuffled(each, clients, slack)
    plain = repeated(each, 0.0, times, delta)
    return plain if one >= each else min(plain, repeated(one, slack, times, delta))


@lru_cache(maxsize=256)
def pure_noise(target: float, times: int, delta: float) -> float:
    """The largest epsilon of each of so many releases that together meet a target."""
    check_target(target)
    check_delta(delta)
    return _most(lambda each: pure_epsilon(each, times, delta) <= target, target)


@lru_cache(maxsize=256)
def shuffled_noise(target: float, clients: int, times: int, delta: float) -> float:
    """The same where every round is shuffled.

    Raises SettingsError where the theorem reaches no local epsilon at all.
    """
