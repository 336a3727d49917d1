"""Epsilon of one user, against closed forms, integrals and other accountants."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from privfed.accounting.gaussian import gaussian_epsilon
from privfed.accounting.loss import Relation
from privfed.accounting.user import (
    Cohorts,
    Fixed,
    Poisson,
    Scheduled,
    sum_noise,
    user_epsilon,
    user_noise,
)
from privfed.errors import SettingsError

DELTA = 1e-5


def spent(
    noise: float,
    cohorts: Cohorts,
    relation: Relation = "add_or_remove",
    delta: float = DELTA,
) -> float:
    return user_epsilon(noise, cohorts, relation, delta).value


def swapped(noise: float, rate: float, delta: float) -> float:
    """Epsilon of one round where a sampled user adds 1 or takes 1 away, integrated."""

    def density(at: float, moved: float) -> float:
        other = (1 - rate) * norm.pdf(at, 0, noise)
        return float(other + rate * norm.pdf(at, moved, noise))

    def excess(guess: float) -> float:
        def part(at: float) -> float:
            return max(0.0, density(at, 1) - math.exp(guess) * density(at, -1))

        reach = 1 + 12 * noise
        return float(quad(part, -reach, reach, limit=400, points=[0.0, 1.0])[0])

    return float(brentq(lambda guess: excess(guess) - delta, 1e-6, 60, xtol=1e-9))


@pytest.mark.parametrize(
    ("sigma", "published"), [(4.22, 1.0012), (1.54, 3.0084), (0.541, 10.0019)]
)
def test_one_round_of_everybody_has_published_figures(
    sigma: float, published: float
) -> None:
    """Andrew et al., ICLR 2024, at delta 1e-6."""
    assert spent(sigma, Scheduled(1), delta=1e-6) == pytest.approx(published, abs=2e-3)


def test_everybody_in_every_round_is_one_gaussian() -> None:
    assert spent(5.0, Scheduled(100)) == pytest.approx(9.997, abs=1e-3)
    assert spent(20.0, Scheduled(100)) == pytest.approx(1.993, abs=1e-3)


@pytest.mark.parametrize(
    ("rate", "rounds", "noises"),
    [
        (0.05, 50, (1.698, 1.148, 0.839, 0.628)),
        (0.05, 100, (2.144, 1.346, 0.941, 0.697)),
        (0.05, 200, (2.846, 1.676, 1.096, 0.787)),
        (0.1, 50, (2.933, 1.751, 1.145, 0.803)),
    ],
)
def test_poisson_cohorts_spend_what_was_tabled(
    rate: float, rounds: int, noises: tuple[float, ...]
) -> None:
    for target, noise in zip((1.0, 2.0, 4.0, 8.0), noises, strict=True):
        assert spent(noise, Poisson(rate, rounds)) == pytest.approx(target, rel=0.01)


def test_three_accountants_on_one_poisson_run() -> None:
    found = user_epsilon(1.0, Poisson(0.05, 100), "add_or_remove", DELTA)

    assert found.value == pytest.approx(3.502, abs=2e-3)
    assert found.prv == pytest.approx(3.512, abs=1e-3)
    assert found.rdp == pytest.approx(4.038, abs=1e-3)
    assert "PLD" in found.accountant


@pytest.mark.parametrize(
    ("noise", "rate", "rounds"), [(0.8, 0.02, 300), (1.5, 0.1, 50), (2.0, 0.3, 30)]
)
def test_pld_and_prv_agree_to_a_percent(noise: float, rate: float, rounds: int) -> None:
    found = user_epsilon(noise, Poisson(rate, rounds), "add_or_remove", DELTA)

    assert found.prv is not None
    assert found.value == pytest.approx(found.prv, rel=0.01)


@pytest.mark.parametrize(
    ("target", "published"), [(1, 4.289), (2, 2.369), (4, 1.441), (8, 0.883)]
)
def test_cohorts_of_a_fixed_size_spend_what_was_tabled(
    target: float, published: float
) -> None:
    """The table counts noise in what neighbors move, 2C; here it is counted in C."""
    found = user_epsilon(2 * published, Fixed(47, 943, 100), "replace_one", DELTA)

    assert found.value == pytest.approx(target, rel=0.01)
    assert "without replacement" in found.accountant


@pytest.mark.parametrize(("noise", "rate"), [(2.0, 0.05), (1.5, 0.3)])
def test_swapping_a_sampled_user_is_the_integral(noise: float, rate: float) -> None:
    exact = swapped(noise, rate, DELTA)
    poisson = spent(noise, Poisson(rate, 1), "replace_one")
    fixed = spent(noise, Fixed(round(1000 * rate), 1000, 1), "replace_one")

    assert exact * (1 - 1e-6) <= poisson <= exact * 1.005
    assert exact <= fixed  # here the pair is one of those that must be covered


@pytest.mark.parametrize(
    ("whole", "sampled"),
    [
        (Scheduled(20), Poisson(1.0, 20)),
        (Scheduled(20), Poisson(1 - 1e-9, 20)),
        (Scheduled(20), Fixed(50, 50, 20)),
    ],
)
def test_taking_everybody_is_the_limit_of_sampling(
    whole: Cohorts, sampled: Cohorts
) -> None:
    assert spent(2.0, sampled, "replace_one") == pytest.approx(
        spent(2.0, whole, "replace_one"), rel=2e-3
    )


@settings(max_examples=8, deadline=None)
@given(
    noise=st.floats(0.6, 8),
    cohorts=st.one_of(
        st.builds(Scheduled, st.integers(1, 300)),
        st.builds(Poisson, st.floats(0.01, 0.9), st.integers(1, 300)),
    ),
)
def test_replacing_a_user_spends_more_than_adding_one(
    noise: float, cohorts: Cohorts
) -> None:
    assert spent(noise, cohorts) <= spent(noise, cohorts, "replace_one") * 1.001


@settings(max_examples=5, deadline=None)
@given(noise=st.floats(1, 8), size=st.integers(1, 99), rounds=st.integers(1, 200))
def test_sampling_only_helps(noise: float, size: int, rounds: int) -> None:
    whole = spent(noise, Scheduled(rounds), "replace_one")

    assert spent(noise, Fixed(size, 100, rounds), "replace_one") <= whole
    assert spent(noise, Poisson(size / 100, rounds), "replace_one") <= whole


@pytest.mark.parametrize(
    "cohorts", [Scheduled(30), Poisson(0.1, 30), Fixed(100, 1000, 30)]
)
@pytest.mark.parametrize("target", [2.0])
def test_calibrated_noise_meets_its_target_and_a_little_less_does_not(
    cohorts: Cohorts, target: float
) -> None:
    noise = user_noise(target, cohorts, "replace_one", DELTA)

    assert spent(noise, cohorts, "replace_one") <= target
    assert spent(noise * 0.997, cohorts, "replace_one") > target


def test_a_fixed_size_is_proven_for_replacing_only() -> None:
    with pytest.raises(ValueError, match="replace_one"):
        spent(1.0, Fixed(10, 100, 5), "add_or_remove")


@settings(max_examples=30)
@given(st.floats(0.3, 50), st.floats(0.3, 200))
def test_the_sum_and_the_count_of_bits_spend_what_one_release_would(
    noise: float, bits: float
) -> None:
    """Theorem 1 of Andrew et al.: two Gaussians at once, the bits half a unit apart."""
    if bits <= noise / 2 * 1.001:
        return
    on_sum = sum_noise(noise, bits)
    together = math.hypot(1 / on_sum, 0.5 / bits)

    assert on_sum >= noise
    assert gaussian_epsilon(together, 1.0, DELTA) == pytest.approx(
        gaussian_epsilon(1.0, noise, DELTA), rel=1e-6
    )


def test_a_count_with_too_little_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="on the bits spends more"):
        sum_noise(2.0, 1.0)


@pytest.mark.parametrize("target", [0.0, math.inf, math.nan])
def test_impossible_targets_are_refused(target: float) -> None:
    with pytest.raises(SettingsError, match="epsilon must be positive"):
        user_noise(target, Scheduled(3), "add_or_remove", DELTA)


@pytest.mark.parametrize("cohorts", [Scheduled(1), Poisson(0.1, 3), Fixed(2, 9, 3)])
def test_a_target_that_needs_no_noise_is_refused(cohorts: Cohorts) -> None:
    with pytest.raises(SettingsError, match="smaller epsilon"):
        user_noise(1e6, cohorts, "replace_one", DELTA)


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(SettingsError, match="delta"):
        spent(1.0, Scheduled(1), delta=1.0)
    with pytest.raises(ValueError, match="noise_multiplier"):
        spent(0.0, Scheduled(1))
