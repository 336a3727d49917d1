"""What a noised sum of users' clipped uploads released, round by round.

Every user's upload has norm at most C, and the sum gets N(0, (noise_multiplier *
C)^2) on every number. What hides a user beside the noise is how a round's cohort is
drawn; each way has the accountant that is proven for it.
"""

from dataclasses import dataclass
from functools import lru_cache

from privfed.accounting.gaussian import EXACT, gaussian_epsilon, gaussian_noise
from privfed.accounting.loss import Relation, moved, sampled_epsilon
from privfed.accounting.noise import SMALLEST, check_delta, least, needless
from privfed.accounting.witness import Epsilon, Sampled

RDP = "RDP, sampled without replacement (dp-accounting)"


@dataclass(frozen=True)
class Scheduled:
    """A schedule that may be known: a user takes part in at most ``times`` rounds."""

    times: int

    @property
    def told(self) -> str:
        return (
            f"no user takes part in more than {self.times} rounds; who takes part may "
            "be known"
        )


@dataclass(frozen=True)
class Poisson:
    """Each user takes part in each round with chance ``rate``, which nobody sees."""

    rate: float
    rounds: int

    @property
    def told(self) -> str:
        return (
            f"each user takes part in each of {self.rounds} rounds with chance "
            f"{self.rate:.3g}; who does must stay with the server"
        )


@dataclass(frozen=True)
class Fixed:
    """``size`` of ``users`` take part in each round, drawn without replacement."""

    size: int
    users: int
    rounds: int

    @property
    def told(self) -> str:
        return (
            f"{self.size} of {self.users} users, drawn anew, take part in each of "
            f"{self.rounds} rounds; who does must stay with the server"
        )


Cohorts = Scheduled | Poisson | Fixed


def user_epsilon(
    noise_multiplier: float, cohorts: Cohorts, relation: Relation, delta: float
) -> Epsilon:
    """The smallest epsilon that we can prove for one user's whole history.

    Raises ValueError for cohorts of a fixed size whose neighbors are not
    ``replace_one``: the amplification is proven for no other.
    """
    check_delta(delta)
    if not noise_multiplier > 0:
        raise ValueError(f"noise_multiplier must be positive, got {noise_multiplier}")
    if isinstance(cohorts, Poisson):
        sampled = Sampled(noise_multiplier, cohorts.rate, cohorts.rounds)
        return sampled_epsilon(sampled, delta, relation)
    noise = noise_multiplier / moved(relation)
    if isinstance(cohorts, Scheduled):
        value = gaussian_epsilon(cohorts.times**0.5, noise, delta)
        return Epsilon(value, delta, EXACT)
    if relation != "replace_one":
        raise ValueError("cohorts of a fixed size need the relation replace_one")
    return _without_replacement(noise, cohorts, delta)


@lru_cache(maxsize=1024)
def _without_replacement(noise: float, cohorts: Fixed, delta: float) -> Epsilon:
    """Wang, Balle and Kasiviswanathan (AISTATS 2019), or no amplification at all."""
    from dp_accounting import (
        GaussianDpEvent,
        SampledWithoutReplacementDpEvent,
        SelfComposedDpEvent,
    )
    from dp_accounting.privacy_accountant import NeighboringRelation
    from dp_accounting.rdp import RdpAccountant

    whole = gaussian_epsilon(cohorts.rounds**0.5, noise, delta)
    if cohorts.size >= cohorts.users or noise < SMALLEST:
        return Epsilon(whole, delta, EXACT)
    one = SampledWithoutReplacementDpEvent(
        cohorts.users, cohorts.size, GaussianDpEvent(noise)
    )
    accountant = RdpAccountant(neighboring_relation=NeighboringRelation.REPLACE_ONE)
    accountant.compose(SelfComposedDpEvent(one, cohorts.rounds))
    value = float(accountant.get_epsilon(delta))
    if value >= whole:
        return Epsilon(whole, delta, EXACT)
    return Epsilon(value, delta, RDP)


@lru_cache(maxsize=256)
def user_noise(
    target: float, cohorts: Cohorts, relation: Relation, delta: float
) -> float:
    """The least noise multiplier whose epsilon is at most ``target``.

    Raises SettingsError for an unusable target, and for one so large that hardly
    any noise is needed.
    """

    def enough(noise: float) -> bool:
        return user_epsilon(noise, cohorts, relation, delta).value <= target

    times = cohorts.times if isinstance(cohorts, Scheduled) else cohorts.rounds
    # sampling only helps, so the noise for every user in every round is enough
    high = moved(relation) * gaussian_noise(target, delta, times)
    if high <= SMALLEST:
        raise needless(target)
    return high if isinstance(cohorts, Scheduled) else least(enough, high, target)


def sum_noise(noise_multiplier: float, bits: float) -> float:
    """The multiplier on the sum that leaves room for a noised count of bits.

    With it and noise of deviation ``bits`` on the sum of every client's bit, minus a
    half, both together spend what ``noise_multiplier`` alone would (Andrew et al.,
    NeurIPS 2021, theorem 1). Raises ValueError where the count alone spends more.
    """
    room = noise_multiplier**-2 - (2 * bits) ** -2
    if room <= 0:
        raise ValueError(
            f"noise of {bits:g} on the bits spends more than a noise multiplier of "
            f"{noise_multiplier:g}; more than half of that is needed"
        )
    return float(room**-0.5)
