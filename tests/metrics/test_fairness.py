"""Fairness figures of populations small enough to do by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from privfed.metrics.fairness import deviation, gini, worst_mean

populations = st.lists(st.floats(0, 1), min_size=1, max_size=30)


@given(populations)
def test_deviation_is_the_population_one(values: list[float]) -> None:
    assert deviation(torch.tensor(values, dtype=torch.float64)) == pytest.approx(
        float(np.std(values))
    )


def test_worst_mean_takes_the_worst_tenth_and_at_least_one() -> None:
    twenty = torch.arange(20.0)

    assert worst_mean(twenty) == 0.5
    assert worst_mean(twenty[3:7]) == 3.0
    assert worst_mean(twenty, share=1.0) == 9.5


@given(populations)
def test_gini_is_half_the_mean_difference(values: list[float]) -> None:
    each = np.array(values)
    mean = float(each.mean())
    apart = float(np.abs(each[:, None] - each[None]).mean())
    wanted = 0.0 if each.sum() == 0 else apart / (2 * mean)

    assert gini(torch.from_numpy(each)) == pytest.approx(wanted, abs=1e-9)


def test_one_client_served_and_the_rest_not_is_as_unfair_as_it_gets() -> None:
    assert gini(torch.tensor([0.0, 0.0, 0.0, 1.0])) == 0.75
    assert gini(torch.ones(4)) == 0.0
    assert gini(torch.zeros(4)) == 0.0


@pytest.mark.parametrize("figure", [deviation, worst_mean, gini])
def test_nobody_and_nan_are_refused(figure: object) -> None:
    assert callable(figure)
    with pytest.raises(ValueError, match="at least one client"):
        figure(torch.tensor([]))
    with pytest.raises(ArithmeticError, match="not finite"):
        figure(torch.tensor([0.1, torch.nan]))


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="share"):
        worst_mean(torch.ones(3), share=0.0)
    with pytest.raises(ValueError, match="0 or more"):
        gini(torch.tensor([-0.1, 0.2]))
