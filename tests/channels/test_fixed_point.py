"""Fixed-point numbers: near, exact in sums, and never wrapped."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from privfed.channels.fixed_point import FixedPoint, OverBound, finest
from privfed.errors import PrivfedError

BOUNDS = st.floats(1e-6, 1e6, allow_nan=False)
TERMS = st.integers(1, 100_000)
CAPACITIES = st.sampled_from([2**31 - 1, 2147477504, 2**49, 2**51])


@given(bound=BOUNDS, terms=TERMS, capacity=CAPACITIES)
def test_the_finest_numbers_fit_and_finer_ones_do_not(
    bound: float, terms: int, capacity: int
) -> None:
    coded = finest(bound, terms, capacity)

    assert terms * coded.levels <= capacity
    assert terms * FixedPoint(bound, coded.bits + 1).levels > capacity


@given(
    bound=st.floats(0.1, 100),
    parts=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=20),
)
def test_a_number_comes_back_within_a_step_and_never_larger(
    bound: float, parts: list[float]
) -> None:
    coded = finest(bound, 50, 2**31 - 1)
    value = torch.tensor(parts, dtype=torch.float64) * bound

    back = coded.decode(coded.encode(value), 1)

    assert float((back - value).abs().max()) < coded.step
    assert (back.abs() <= value.abs()).all()  # what bounds a norm still holds


@given(
    values=st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=30),
)
def test_sums_are_those_of_exact_arithmetic(values: list[int]) -> None:
    coded = finest(1.0, len(values), 2**40)
    value = torch.tensor(values, dtype=torch.float64) / 2**20

    sums = coded.encode(value).sum()

    exact = sum((Fraction(v, 2**20) for v in values), Fraction(0))
    assert Fraction(float(coded.decode(sums, len(values)))) == exact


@given(value=st.floats(allow_nan=True, allow_infinity=True, width=32))
def test_what_is_over_the_bound_is_refused_and_nothing_else(value: float) -> None:
    coded = finest(4.0, 943, 2**31)
    if abs(value) <= 4:
        assert abs(int(coded.encode(torch.tensor([value])))) <= coded.levels
    else:
        with pytest.raises(OverBound):
            coded.encode(torch.tensor([0.0, value]))


def test_a_sum_that_cannot_be_is_refused() -> None:
    coded = finest(1.0, 10, 2**20)
    most = torch.tensor([10 * coded.levels])

    assert float(coded.decode(most, 10)) == 10.0
    for wrong in (most + 1, -most - 1):
        with pytest.raises(PrivfedError, match="10 uploads"):
            coded.decode(wrong, 10)
    assert float(coded.decode(most + 3, 10, noise=3)) > 10.0


def test_no_numbers_are_no_trouble() -> None:
    coded = finest(1.0, 10, 2**20)
    assert coded.decode(coded.encode(torch.zeros(0)), 10).shape == (0,)


@pytest.mark.parametrize("bound", [0.0, -1.0, float("inf"), float("nan")])
def test_bounds_that_are_none(bound: float) -> None:
    with pytest.raises(ValueError, match="bound"):
        finest(bound, 1, 2**31)


def test_more_terms_than_the_capacity() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        finest(1.0, 100, 99)
