"""Epsilon of single uploads, against exact sums over all outcomes."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import binom

from privfed.accounting.gaussian import gaussian_epsilon
from privfed.accounting.local import (
    OPTIMAL,
    SHUFFLED,
    GaussianUploads,
    LaplaceUploads,
    largest,
    most_pure,
    most_shuffled,
    pure_epsilon,
    shuffled,
)
from privfed.errors import SettingsError

DELTA = 1e-5


def answers(each: float, times: int, delta: float) -> float:
    """Epsilon of so many randomized responses, summed over how many told the truth."""
    right = np.arange(times + 1)
    chance = 1 / (1 + math.exp(-each))
    loss = (2 * right - times) * each
    mass = binom.pmf(right, times, chance)

    def excess(guess: float) -> float:
        return float((mass * np.maximum(0, 1 - np.exp(guess - loss))).sum() - delta)

    return float(brentq(excess, 0, times * each + 1, xtol=1e-10))


def clones(each: float, clients: int, delta: float) -> float:
    """What shuffling leaves, by the pair that all others are reduced to.

    Every other client is a clone of one of the two values with chance e^-each
    (Feldman et al., section 3): count the clones, and who of them looks like which.
    """
    clone = np.arange(clients)
    first = np.arange(clients + 1)[:, None]
    alpha = 1 / (1 + math.exp(-each))
    here = binom.pmf(first, clone, 0.5)
    beside = binom.pmf(first - 1, clone, 0.5)
    mass = binom.pmf(clone, clients - 1, math.exp(-each))
    p = mass * (alpha * beside + (1 - alpha) * here)
    q = mass * ((1 - alpha) * beside + alpha * here)

    def excess(guess: float) -> float:
        return float(np.maximum(0, p - math.exp(guess) * q).sum() - delta)

    return float(brentq(excess, 0, each, xtol=1e-9)) if excess(0) > 0 else 0.0


@pytest.mark.parametrize(("each", "times"), [(0.1, 30), (1.0, 30), (0.02, 400)])
def test_pure_releases_compose_as_randomized_responses(each: float, times: int) -> None:
    found = pure_epsilon(each, times, DELTA)

    assert found == pytest.approx(answers(each, times, DELTA), rel=1e-5)
    assert found <= times * each


def test_one_pure_release_spends_hardly_less_than_it_says() -> None:
    assert pure_epsilon(2.0, 1, DELTA) == pytest.approx(2.0, abs=1e-4)


@pytest.mark.parametrize(
    ("each", "clients"), [(0.1, 300), (0.5, 1_000), (1.0, 1_000), (1.5, 2_000)]
)
@pytest.mark.parametrize("delta", [1e-3, 1e-5])
def test_the_closed_form_is_never_below_the_clones_exact_figure(
    each: float, clients: int, delta: float
) -> None:
    found = shuffled(each, clients, delta)
    if math.isinf(found):
        assert each > math.log(clients / (16 * math.log(2 / delta)))
        return
    exact = clones(each, clients, delta)

    assert exact <= found
    assert found < min(each, 20 * exact)  # a bound, yet no vacuous one


def test_the_closed_form_by_hand() -> None:
    grown = math.exp(0.5)
    wide = 8 * math.sqrt(grown * math.log(4e5)) / math.sqrt(1_000) + 8 * grown / 1_000
    by_hand = math.log(1 + (grown - 1) / (grown + 1) * wide)

    assert shuffled(0.5, 1_000, DELTA) == pytest.approx(by_hand)


@given(st.integers(2, 10_000), st.floats(1e-9, 0.1), st.floats(1e-3, 1e-1))
def test_beyond_its_condition_the_theorem_says_nothing(
    clients: int, delta: float, more: float
) -> None:
    limit = largest(clients, delta)

    assert math.isinf(shuffled(limit + more, clients, delta))
    if limit > more:
        assert math.isfinite(shuffled(limit - more, clients, delta))


def test_more_clients_hide_more() -> None:
    found = [shuffled(0.5, clients, DELTA) for clients in (500, 2_000, 50_000)]

    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.05


def test_gaussian_uploads_compose_to_one_gaussian() -> None:
    uploads = GaussianUploads(3.0, 25)

    found = uploads.epsilon(DELTA).value
    assert found == pytest.approx(gaussian_epsilon(1.0, 3.0 / 5, DELTA))
    assert uploads.one(DELTA) == gaussian_epsilon(1.0, 3.0, DELTA)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.1, 20), st.integers(1, 200))
@example(5.5, 130)  # the accountant meets a mass next to nothing
def test_each_release_may_spend_what_meets_the_target_and_no_more(
    target: float, times: int
) -> None:
    each = most_pure(target, times, DELTA)

    assert pure_epsilon(each, times, DELTA) <= target
    assert pure_epsilon(each * 1.001, times, DELTA) > target * 0.9999


def test_shuffling_lets_each_upload_spend_more() -> None:
    each = most_shuffled(8.0, 943, 30, DELTA)
    uploads = LaplaceUploads(each, 30, 943)

    assert each > 1.5 * most_pure(8.0, 30, DELTA)
    assert uploads.epsilon(DELTA).value <= 8.0
    assert uploads.epsilon(DELTA).accountant == SHUFFLED
    assert LaplaceUploads(each, 30).epsilon(DELTA).value > 8.0
    assert LaplaceUploads(each, 30).epsilon(DELTA).accountant == OPTIMAL


@pytest.mark.parametrize("clients", [3, 300])
def test_shuffling_in_vain_is_refused(clients: int) -> None:
    with pytest.raises(SettingsError, match="more clients a round, or leave shuffle"):
        most_shuffled(8.0, clients, 30, DELTA)
    with pytest.raises(SettingsError, match="not proven to help"):
        LaplaceUploads(5.0, 30, clients).gains(DELTA)


@pytest.mark.parametrize("target", [0.0, math.inf, math.nan])
def test_impossible_targets_are_refused(target: float) -> None:
    with pytest.raises(SettingsError, match="epsilon must be positive"):
        most_pure(target, 3, DELTA)


def test_impossible_deltas_are_refused() -> None:
    with pytest.raises(SettingsError, match="delta"):
        pure_epsilon(1.0, 3, 1.0)
