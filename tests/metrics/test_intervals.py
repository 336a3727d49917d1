"""Intervals cover what they claim to cover."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from privfed.metrics.intervals import bootstrap, over_seeds, paired
from privfed.seeds import Seeds

STREAM = Seeds(3)("bootstrap")


def test_bootstrap_is_near_the_normal_interval_of_many_clients() -> None:
    values = torch.rand(2_000, generator=torch.Generator().manual_seed(0))
    half = 1.96 * float(values.std()) / math.sqrt(len(values))
    low, high = bootstrap(values, STREAM)

    assert low == pytest.approx(float(values.mean()) - half, abs=0.1 * half)
    assert high == pytest.approx(float(values.mean()) + half, abs=0.1 * half)


def test_bootstrap_covers_the_truth_as_often_as_it_claims() -> None:
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for trial in range(200):
        values = torch.rand(60, generator=generator)
        low, high = bootstrap(values, STREAM.of("trial", trial), confidence=0.8)
        covered += low <= 0.5 <= high

    assert stats.binomtest(covered, 200, 0.8).pvalue > 1e-3


def test_bootstrap_is_a_function_of_its_stream() -> None:
    values = torch.rand(50, generator=torch.Generator().manual_seed(0))

    assert bootstrap(values, STREAM) == bootstrap(values, STREAM)
    assert bootstrap(values, STREAM) != bootstrap(values, STREAM.of("other"))


def test_bootstrap_batches_large_populations() -> None:
    values = torch.rand(50_000, generator=torch.Generator().manual_seed(0))
    low, high = bootstrap(values, STREAM)

    assert 0.495 < low < float(values.mean()) < high < 0.505


def test_bootstrap_leaves_undefined_clients_out() -> None:
    values = torch.tensor([0.0, 1.0, 0.5, 0.25])
    holes = torch.tensor([0.0, torch.nan, 1.0, 0.5, 0.25])

    assert bootstrap(holes, STREAM) == bootstrap(values, STREAM)


@pytest.mark.parametrize("values", [[], [0.3], [0.3, math.nan]])
def test_bootstrap_of_one_client_is_undefined(values: list[float]) -> None:
    assert all(math.isnan(end) for end in bootstrap(torch.tensor(values), STREAM))


def test_bootstrap_of_equal_values_is_that_value() -> None:
    assert bootstrap(torch.full((9,), 0.5), STREAM) == (0.5, 0.5)


def test_bootstrap_refuses_an_infinity() -> None:
    with pytest.raises(ArithmeticError, match="infinite"):
        bootstrap(torch.tensor([1.0, math.inf]), STREAM)


def test_over_seeds_is_the_t_interval() -> None:
    values = [0.41, 0.43, 0.40, 0.45]
    wanted = stats.t.interval(0.9, 3, np.mean(values), stats.sem(values))

    assert over_seeds(values, 0.9) == pytest.approx(wanted)
    assert over_seeds([0.5, 0.5]) == (0.5, 0.5)


def test_paired_is_the_paired_t_test() -> None:
    first, second = [0.41, 0.43, 0.40, 0.45], [0.40, 0.41, 0.39, 0.42]
    wanted = stats.ttest_rel(first, second).confidence_interval(0.95)

    assert paired(first, second) == pytest.approx((wanted.low, wanted.high))


def test_pairing_removes_what_both_runs_share() -> None:
    first, second = [0.1, 0.9, 0.5], [0.0, 0.8, 0.4]

    assert paired(first, second) == pytest.approx((0.1, 0.1))


def test_intervals_refuse_what_they_cannot_cover() -> None:
    with pytest.raises(ValueError, match="needs 2 runs"):
        over_seeds([0.5])
    with pytest.raises(ArithmeticError, match="not finite"):
        over_seeds([0.5, math.nan])
    with pytest.raises(ValueError, match="one to one"):
        paired([0.1, 0.2], [0.1])


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        bootstrap(torch.rand(5), STREAM, confidence=confidence)
    with pytest.raises(ValueError, match="confidence"):
        over_seeds([0.1, 0.2], confidence)
