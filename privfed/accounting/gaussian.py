"""The Gaussian mechanism that always looks at all data: exact figures.

Balle and Wang, Improving the Gaussian Mechanism, ICML 2018, as dp-accounting has it.
"""

import math

from privfed.accounting.noise import check_delta, check_target

EXACT = "exact Gaussian (dp-accounting)"


def gaussian_epsilon(sensitivity: float, sigma: float, delta: float) -> float:
    """Epsilon of one Gaussian mechanism: exact, not the textbook bound.

    ``sigma`` is the standard deviation of the noise, ``sensitivity`` the most by
    which neighbors move the released vector in L2 (theorem 8).
    """
    from dp_accounting import get_epsilon_gaussian

    check_delta(delta)
    if not sensitivity > 0 or not sigma > 0:
        raise ValueError(
            f"sensitivity and sigma must be positive, got {sensitivity} and {sigma}"
        )
    return float(get_epsilon_gaussian(sigma / sensitivity, delta))


def gaussian_noise(target: float, delta: float, times: int = 1) -> float:
    """Standard deviation over sensitivity that ``times`` releases need, never less."""
    from dp_accounting import get_sigma_gaussian

    check_target(target)
    check_delta(delta)
    # n Gaussian mechanisms are one Gaussian mechanism with sqrt(n) less noise
    return float(get_sigma_gaussian(target, delta)) * math.sqrt(times) * (1 + 1e-6)
