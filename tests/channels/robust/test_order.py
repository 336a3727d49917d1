"""Order statistics over clients equal their slow twins, and what algebra says."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Generator, Tensor

from privfed.channels.robust.order import mean, median, near_median, without_ends
from tests.channels.robust import twins

Rule = Callable[[Tensor, int], Tensor]
RULES: dict[str, Rule] = {
    "median": lambda x, _: median(x),
    "without_ends": without_ends,
    "near_median": near_median,
}
named = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
seeds = st.integers(0, 500)


def draw(seed: int, clients: int, width: int = 4, coarse: bool = False) -> Tensor:
    """One group, (1, clients, width); ``coarse`` numbers tie often."""
    rng = Generator().manual_seed(seed)
    if coarse:
        return torch.randint(-3, 4, (1, clients, width), generator=rng).double()
    return torch.randn(1, clients, width, generator=rng, dtype=torch.float64)


@given(seed=seeds, clients=st.integers(1, 12), coarse=st.booleans())
def test_the_median_is_numpys(seed: int, clients: int, coarse: bool) -> None:
    x = draw(seed, clients, coarse=coarse)

    np.testing.assert_allclose(median(x)[0], np.median(x[0], 0))


@given(seed=seeds, clients=st.integers(1, 12), data=st.data())
def test_the_mean_without_its_ends_is_scipys(
    seed: int, clients: int, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, (clients - 1) // 2))
    x = draw(seed, clients)

    found = without_ends(x, cut)[0]

    np.testing.assert_allclose(found, stats.trim_mean(x[0], (cut + 1e-9) / clients))
    np.testing.assert_allclose(found, twins.ends(x[0].numpy(), cut))


@given(seed=seeds, clients=st.integers(1, 12), coarse=st.booleans(), data=st.data())
def test_the_mean_near_the_median_is_the_slow_one(
    seed: int, clients: int, coarse: bool, data: st.DataObject
) -> None:
    away = data.draw(st.integers(0, clients - 1))
    x = draw(seed, clients, coarse=coarse)

    np.testing.assert_allclose(
        near_median(x, away)[0], twins.nearest(x[0].numpy(), away), atol=1e-12
    )


def test_a_small_case_by_hand() -> None:
    x = torch.tensor([1.0, 2.0, 3.0, 10.0, 100.0]).view(1, 5, 1)

    assert median(x).item() == 3
    assert without_ends(x, 1).item() == 5  # 2, 3, 10
    assert near_median(x, 1).item() == 4  # 1, 2, 3, 10
    assert near_median(x, 2).item() == 2  # 1, 2, 3


@named
@given(seed=seeds, clients=st.integers(1, 11), shift=st.floats(-50, 50))
def test_moving_everybody_moves_the_result(
    rule: Rule, seed: int, clients: int, shift: float
) -> None:
    x, f = draw(seed, clients), (clients - 1) // 2

    torch.testing.assert_close(rule(x + shift, f), rule(x, f) + shift)


@named
@given(seed=seeds, order=st.permutations(range(9)))
def test_the_order_of_clients_does_not_matter(
    rule: Rule, seed: int, order: list[int]
) -> None:
    x = draw(seed, 9, coarse=seed % 2 == 0)

    assert torch.equal(rule(x[:, order], 3), rule(x, 3))


@named
@given(seed=seeds, value=st.sampled_from([1e30, -1e30, torch.inf, -torch.inf]))
def test_a_minority_cannot_leave_the_honest_range(
    rule: Rule, seed: int, value: float
) -> None:
    x, forged = draw(seed, 9), draw(seed, 9)
    forged[:, :4] = value

    found = rule(forged, 4)[0]

    assert (found >= x[0, 4:].amin(0) - 1e-12).all()
    assert (found <= x[0, 4:].amax(0) + 1e-12).all()


@named
def test_what_is_not_a_number_counts_as_one_that_lies_outside(rule: Rule) -> None:
    x = draw(0, 9)
    high, none = x.clone(), x.clone()
    high[:, :4], none[:, :4] = torch.inf, torch.nan

    assert torch.equal(rule(none, 4), rule(high, 4))


@given(seed=seeds)
def test_one_more_liar_than_assumed_does_leave_it(seed: int) -> None:
    x = draw(seed, 9)
    x[:, :5] = 1e30

    for rule in RULES.values():
        assert (rule(x, 4) > 1e10).all()


@named
def test_equal_numbers_give_that_number(rule: Rule) -> None:
    x = torch.full((3, 7, 2), 0.1)

    assert torch.equal(rule(x, 3), x[:, 0])


def test_assuming_nobody_lies_is_the_mean() -> None:
    x = draw(1, 8)

    torch.testing.assert_close(without_ends(x, 0), mean(x))
    torch.testing.assert_close(near_median(x, 0), mean(x))


@named
def test_groups_do_not_mix(rule: Rule) -> None:
    x = torch.cat([draw(k, 7) for k in range(5)])

    for k in range(5):
        assert torch.equal(rule(x, 2)[k], rule(x[k : k + 1], 2)[0])


@named
def test_what_is_given_stays_as_it_is(rule: Rule) -> None:
    x = draw(3, 6)
    rule(x, 2)

    assert torch.equal(x, draw(3, 6))
