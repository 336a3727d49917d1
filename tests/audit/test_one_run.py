"""The one-run bound against its paper's figures, closed forms and a private game."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privfed.audit.one_run import Guesses

# canaries, guesses, right ones, delta, bound. The first two are the paper's (appendix D
# and section 7), the others an independent computation's.
PINS = [
    (1_000, 100, 75, 1e-4, 0.67298),
    (100_000, 1_510, 1_439, 1e-5, 2.67585),
    (1_000, 1_000, 1_000, 0.0, 5.80907),
    (1_000, 1_000, 1_000, 1e-5, 5.78228),
    (943, 943, 943, 1e-5, 5.72503),
    (943, 100, 100, 1e-5, 3.46695),
    (100, 100, 100, 0.0, 3.49297),
]


@pytest.mark.parametrize(("canaries", "made", "correct", "delta", "bound"), PINS)
def test_published_figures(
    canaries: int, made: int, correct: int, delta: float, bound: float
) -> None:
    found = Guesses(canaries, made, correct).epsilon(delta)
    assert found == pytest.approx(bound, abs=2e-5)


@given(made=st.integers(1, 2_000))
def test_all_right_has_a_closed_form(made: int) -> None:
    chance = 0.05 ** (1 / made)
    wanted = max(0.0, math.log(chance / (1 - chance)))
    assert Guesses(made, made, made).epsilon(0.0) == pytest.approx(wanted, abs=1e-6)


@given(made=st.integers(1, 500), share=st.floats(0, 1), delta=st.floats(0, 1e-2))
def test_more_right_guesses_refute_more_and_delta_less(
    made: int, share: float, delta: float
) -> None:
    fewer = int(share * made)
    bound = Guesses(made, made, fewer).epsilon(delta)

    assert bound <= Guesses(made, made, made).epsilon(delta) + 1e-6
    assert bound <= Guesses(made, made, fewer).epsilon(0.0) + 1e-6


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_a_game_that_is_private_is_seldom_refuted(epsilon: float) -> None:
    """Randomized response is the most that epsilon allows: the bound holds 95 %."""
    rng = np.random.default_rng(0)
    right = rng.binomial(500, 1 / (1 + math.exp(-epsilon)), 400)
    refuted = [Guesses(500, 500, int(v)).epsilon(0.0) > epsilon for v in right]

    assert np.mean(refuted) <= 0.08
    assert np.mean([Guesses(500, 500, int(v)).epsilon(0.0) for v in right]) > 0.5 * (
        epsilon
    )


@pytest.mark.parametrize("wrong", [(10, 11, 5), (10, 5, 6), (10, 5, -1)])
def test_impossible_guesses_are_refused(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="0 <= correct <= made <= canaries"):
        Guesses(*wrong)


@pytest.mark.parametrize(("delta", "confidence"), [(-0.1, 0.95), (1.0, 0.95), (0, 1.0)])
def test_impossible_chances_are_refused(delta: float, confidence: float) -> None:
    with pytest.raises(ValueError, match="must be chances"):
        Guesses(10, 5, 5).epsilon(delta, confidence)
