"""The least noise whose epsilon is at most a target."""

import math
from collections.abc import Callable

from privfed.errors import SettingsError

SMALLEST = 0.05  # below it epsilon is in the hundreds: no protection
_LARGEST = 1e6  # an epsilon beyond it is out of the accountants' reach


def least(enough: Callable[[float], bool], high: float, target: float) -> float:
    """Halve from above, where accounting is fast, then bisect.

    ``high`` is enough. Never too small, and too large by 0.001 at most, or by one
    part in 10,000 where that is more. Raises SettingsError where hardly any noise is
    needed.
    """
    low = high / 2
    while low > SMALLEST and enough(low):
        low, high = low / 2, low
    if low <= SMALLEST:
        if high <= SMALLEST or enough(SMALLEST):
            raise needless(target)
        low = SMALLEST
    while high - low > max(1e-3, 1e-4 * high):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def needless(target: float) -> SettingsError:
    return SettingsError(
        f"epsilon={target:g} asks for a noise multiplier below {SMALLEST}, "
        "which protects nothing; ask for a smaller epsilon"
    )


def check_target(target: float) -> None:
    """Raise SettingsError for an epsilon that nothing can be calibrated to."""
    if not 0 < target < math.inf:
        raise SettingsError(f"epsilon must be positive and finite, got {target}")
    if target > _LARGEST:
        raise SettingsError(
            f"epsilon={target:g} protects nothing; ask for one of {_LARGEST:g} at most"
        )


def check_delta(delta: float) -> None:
    """Raise SettingsError for a delta that is no probability."""
    if not 0 < delta < 1:
        raise SettingsError(f"delta must lie in (0, 1), got {delta}")
