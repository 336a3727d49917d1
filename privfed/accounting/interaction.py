"""What devices that train by DP-SGD released, and its epsilon.

The printed figure is an upper bound: exact for a Gaussian mechanism that always
looks at all data, else from the privacy loss distribution. Opacus' RDP and PRV
accountants stand beside it as cross-checks.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

from privfed.accounting.gaussian import gaussian_noise
from privfed.accounting.loss import sampled_epsilon
from privfed.accounting.noise import SMALLEST, check_delta, least, needless
from privfed.accounting.witness import Epsilon, Sampled


@dataclass(frozen=True)
class InteractionRelease:
    """Steps of DP-SGD on one device, with all that one interaction can touch.

    Each step takes every interaction with chance ``sampling_rate`` (Poisson), clips
    it to C and adds N(0, (noise_multiplier * C)^2) to every number of the sum.
    Neighbors differ by one interaction added or removed.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int

    def __post_init__(self) -> None:
        if not 0 < self.noise_multiplier < math.inf:
            raise ValueError(
                f"noise_multiplier must be positive, got {self.noise_multiplier}"
            )
        if not 0 < self.sampling_rate <= 1:
            raise ValueError(
                f"sampling_rate must lie in (0, 1], got {self.sampling_rate}"
            )
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")


def epsilon(release: InteractionRelease, delta: float) -> Epsilon:
    """The smallest epsilon that we can prove for a release, at this delta."""
    check_delta(delta)
    sampled = Sampled(release.noise_multiplier, release.sampling_rate, release.steps)
    return sampled_epsilon(sampled, delta)


@lru_cache(maxsize=256)
def calibrate(target: float, delta: float, sampling_rate: float, steps: int) -> float:
    """The least noise multiplier whose epsilon is at most ``target``.

    Never too small, and too large by 0.001 at most, or by one part in 10,000 where
    that is more. Raises SettingsError for an unusable target, and for one so large
    that hardly any noise is needed.
    """
    InteractionRelease(1.0, sampling_rate, steps)  # refuses an unusable rate or count

    def enough(noise: float) -> bool:
        sampled = Sampled(noise, sampling_rate, steps)
        return sampled_epsilon(sampled, delta).value <= target

    # sampling only helps, so the noise for all data at every step is enough
    high = gaussian_noise(target, delta, steps)
    if high <= SMALLEST:
        raise needless(target)
    return high if sampling_rate == 1.0 else least(enough, high, target)
