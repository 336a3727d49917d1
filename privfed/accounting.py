"""What a run released, and its epsilon.

The printed figure is an upper bound: exact for a Gaussian mechanism that always
looks at all data (Balle and Wang, ICML 2018), else from the privacy loss
distribution of dp-accounting, discretized pessimistically (Doroshenko et al.,
PoPETs 2022). Opacus' RDP and PRV accountants stand beside it as cross-checks. Its
GDP accountant is absent: it reports less than was spent.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from privfed.errors import SettingsError

PLD = "PLD (dp-accounting)"
EXACT = "exact Gaussian (dp-accounting)"

_SMALLEST_NOISE = 0.05  # below it epsilon is in the hundreds: no protection
_GRIDS = (1e-2, 1e-3, 1e-4, 1e-5)  # widths of the loss grid, coarse to fine
_PRECISION = 1e-3  # relative error at which a grid is fine enough
_POINTS = 2_000_000  # a finer grid than this many points takes too long


@dataclass(frozen=True)
class Guarantee:
    """What a defense promises, in checkable words; ``private``: whether it is DP."""

    private: bool
    epsilon: float | None
    delta: float | None
    unit: str  # "interaction" or "user"; "none" where nothing is promised
    relation: str  # the neighboring relation
    trust: str  # who sees what, and who must be trusted
    accountant: str
    covers: str
    caveats: tuple[str, ...] = ()

    def sentence(self) -> str:
        """The promise, its limits included, in one sentence."""
        caveats = "".join(f"; {caveat}" for caveat in self.caveats)
        if not self.private or self.epsilon is None or self.delta is None:
            return (
                f"No differential privacy: this changes {self.covers}; "
                f"{self.trust}{caveats}."
            )
        return (
            f"({_upward(self.epsilon)}, {self.delta:g})-differential privacy of one "
            f"{self.unit} ({self.relation}), by {self.accountant}; covers "
            f"{self.covers}; {self.trust}{caveats}."
        )


def _upward(epsilon: float) -> str:
    """Three digits, rounded up: a printed epsilon may never be too small."""
    if not 0 < epsilon < math.inf:
        return f"{epsilon:g}"
    unit = 10.0 ** (math.floor(math.log10(epsilon)) - 2)
    return f"{math.ceil(epsilon / unit - 1e-9) * unit:.6g}"


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


@dataclass(frozen=True)
class Epsilon:
    """An upper bound of what was spent, and two other accountants' word on it."""

    value: float
    delta: float
    accountant: str
    release: InteractionRelease

    @cached_property
    def rdp(self) -> float | None:
        """Opacus' RDP bound; None where its fixed orders do not reach."""
        return _opacus("RDPAccountant", self.release, self.delta)

    @cached_property
    def prv(self) -> float | None:
        """Opacus' PRV bound; None where its grid fails, as at full sampling."""
        return _opacus("PRVAccountant", self.release, self.delta)


def epsilon(release: InteractionRelease, delta: float) -> Epsilon:
    """The smallest epsilon that we can prove for a release, at this delta."""
    _check_delta(delta)
    value, accountant = _spent(release, delta)
    return Epsilon(value, delta, accountant, release)


def gaussian_epsilon(sensitivity: float, sigma: float, delta: float) -> float:
    """Epsilon of one Gaussian mechanism: exact, not the textbook bound.

    ``sigma`` is the standard deviation of the noise, ``sensitivity`` the most by
    which neighbors move the released vector in L2 (Balle and Wang, theorem 8).
    """
    from dp_accounting import get_epsilon_gaussian

    _check_delta(delta)
    if not sensitivity > 0 or not sigma > 0:
        raise ValueError(
            f"sensitivity and sigma must be positive, got {sensitivity} and {sigma}"
        )
    return float(get_epsilon_gaussian(sigma / sensitivity, delta))


@lru_cache(maxsize=256)
def calibrate(target: float, delta: float, sampling_rate: float, steps: int) -> float:
    """The least noise multiplier whose epsilon is at most ``target``.

    Never too small, and too large by 0.001 at most, or by one part in 10,000 where
    that is more. Raises SettingsError for an unusable target, and for one so large
    that hardly any noise is needed.
    """
    from dp_accounting import get_sigma_gaussian

    if not 0 < target < math.inf:
        raise SettingsError(f"epsilon must be positive and finite, got {target}")
    _check_delta(delta)
    InteractionRelease(1.0, sampling_rate, steps)  # refuses an unusable rate or count

    def enough(noise: float) -> bool:
        release = InteractionRelease(noise, sampling_rate, steps)
        return _spent(release, delta)[0] <= target

    # sampling only helps, so the noise for all data at every step is enough
    high = float(get_sigma_gaussian(target, delta)) * math.sqrt(steps) * (1 + 1e-6)
    if high <= _SMALLEST_NOISE:
        raise _needless(target)
    if sampling_rate == 1.0:
        return high
    return _least(enough, high, target)


def _least(enough: Callable[[float], bool], high: float, target: float) -> float:
    """Halve from above, where accounting is fast, then bisect."""
    low = high / 2
    while low > _SMALLEST_NOISE and enough(low):
        low, high = low / 2, low
    if low <= _SMALLEST_NOISE:
        if enough(_SMALLEST_NOISE):
            raise _needless(target)
        low = _SMALLEST_NOISE
    while high - low > max(1e-3, 1e-4 * high):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _needless(target: float) -> SettingsError:
    return SettingsError(
        f"epsilon={target:g} asks for a noise multiplier below {_SMALLEST_NOISE}, "
        "which protects nothing; ask for a smaller epsilon"
    )


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise SettingsError(f"delta must lie in (0, 1), got {delta}")


@lru_cache(maxsize=1024)
def _spent(release: InteractionRelease, delta: float) -> tuple[float, str]:
    """The better of two upper bounds, and the name of the one that gave it."""
    # n Gaussian mechanisms are one Gaussian mechanism with sqrt(n) less noise
    sensitivity = math.sqrt(release.steps)
    whole = gaussian_epsilon(sensitivity, release.noise_multiplier, delta)
    if release.sampling_rate == 1.0 or release.noise_multiplier < _SMALLEST_NOISE:
        return whole, EXACT
    sampled = _pld(release, delta)
    return (sampled, PLD) if sampled < whole else (whole, EXACT)


def _pld(release: InteractionRelease, delta: float) -> float:
    """Refine the grid until its pessimism is small beside epsilon.

    Every grid gives an upper bound; its excess falls with the square of its width,
    so a tenfold finer one has a hundredth of the excess.
    """
    # a step's loss lies between about -reach and reach
    noise = release.noise_multiplier
    reach = 1 / noise**2 + 10 / noise
    last = math.inf
    for width in _GRIDS:
        if last < math.inf and max(reach, last) / width > _POINTS:
            break
        value = min(last, _pld_on(release, delta, width))
        if last - value <= 100 * _PRECISION * value:
            return value
        last = value
    return last


def _pld_on(release: InteractionRelease, delta: float, width: float) -> float:
    from dp_accounting.pld import privacy_loss_distribution

    step = privacy_loss_distribution.from_gaussian_mechanism(
        release.noise_multiplier,
        value_discretization_interval=width,
        sampling_prob=release.sampling_rate,
    )
    return float(step.self_compose(release.steps).get_epsilon_for_delta(delta))


def _opacus(name: str, release: InteractionRelease, delta: float) -> float | None:
    from opacus import accountants

    accountant = getattr(accountants, name)()
    accountant.history = [
        (release.noise_multiplier, release.sampling_rate, release.steps)
    ]
    with warnings.catch_warnings():
        # it warns where its figure is no longer to be relied on
        warnings.simplefilter("error")
        try:
            value = float(accountant.get_epsilon(delta=delta))
        except (Warning, ArithmeticError, ValueError, RuntimeError, MemoryError):
            return None
    return value if math.isfinite(value) else None
