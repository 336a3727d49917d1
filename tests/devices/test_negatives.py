"""Negative sampling draws what its rule allows, for each client alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from privfed.data.cohort import Cohort, cohort_of
from privfed.devices.negatives import Negatives, draw
from privfed.errors import SettingsError
from privfed.seeds import Seeds
from tests.worlds import everyone, uneven, world

STREAM = Seeds(7)("negatives")


def within(cohort: Cohort) -> Tensor:
    starts = cohort.counts.cumsum(0) - cohort.counts
    return torch.arange(len(cohort.item)) - starts[cohort.sender]


def drawn(cohort: Cohort, rule: Negatives) -> Tensor:
    return draw(cohort, within(cohort), rule, STREAM)


def owned(cohort: Cohort, items: Tensor) -> Tensor:
    """Whether each drawn item is among its client's training items."""
    mine = torch.zeros(len(cohort.clients), cohort.shape.items, dtype=torch.bool)
    mine[cohort.sender, cohort.item] = True
    return mine[cohort.sender[:, None], items]


@given(seed=st.integers(0, 50), k=st.integers(1, 6))
def test_train_only_never_draws_a_training_item(seed: int, k: int) -> None:
    cohort = everyone(uneven(seed=seed))
    items = drawn(cohort, Negatives(k))

    assert items.shape == (len(cohort.item), k)
    assert not owned(cohort, items).any()
    assert items.min() >= 0
    assert items.max() < cohort.shape.items


def test_nothing_excluded_draws_training_items_too() -> None:
    cohort = everyone(uneven())
    assert owned(cohort, drawn(cohort, Negatives(4, "nothing"))).any()


def test_only_all_interactions_spares_the_held_out_items() -> None:
    of = world([[0, 1], [2]], items=6, test=[[3, 4], [0]])
    cohort = everyone(of)

    leaky = torch.cat([drawn(cohort, Negatives(40, "all_interactions"))])
    clean = drawn(cohort, Negatives(40))

    assert set(leaky[:2].flatten().tolist()) == {2, 5}
    assert set(leaky[2].tolist()) == {1, 3, 4, 5}
    assert set(clean[:2].flatten().tolist()) == {2, 3, 4, 5}


@given(seed=st.integers(0, 50))
def test_distinct_negatives_of_one_positive_differ(seed: int) -> None:
    cohort = everyone(uneven(seed=seed))
    items = drawn(cohort, Negatives(20, distinct=True)).sort(1).values

    assert (items.diff(dim=1) > 0).all()
    assert not owned(cohort, items).any()


def test_with_replacement_they_repeat() -> None:
    items = drawn(everyone(uneven()), Negatives(20)).sort(1).values
    assert (items.diff(dim=1) == 0).any()


def test_the_pool_can_be_the_items_in_training() -> None:
    of = world([[0, 1], [2, 3]], items=50)
    items = drawn(everyone(of), Negatives(4, pool="items_in_train"))

    assert set(items[:2].flatten().tolist()) <= {2, 3}
    assert set(items[2:].flatten().tolist()) <= {0, 1}


def test_a_draw_depends_on_the_client_alone() -> None:
    of = uneven()
    together = drawn(everyone(of), Negatives())
    alone = [drawn(cohort_of(of, torch.tensor([c])), Negatives()) for c in range(8)]

    assert torch.equal(together, torch.cat(alone))


def test_draws_are_uniform_over_what_is_allowed() -> None:
    of = world([list(range(5))] * 200, items=25)
    counts = torch.bincount(drawn(everyone(of), Negatives(20)).flatten(), minlength=25)

    assert not counts[:5].any()
    expected = 200 * 5 * 20 / 20
    chi_square = ((counts[5:] - expected) ** 2 / expected).sum().item()
    assert 4.9 < chi_square < 43.8  # 19 degrees of freedom, 0.05 % each side


def test_few_free_items_suffice_with_replacement() -> None:
    cohort = everyone(world([[0, 1, 2]], items=4))
    assert set(drawn(cohort, Negatives(4)).flatten().tolist()) == {3}


def test_too_few_free_items_are_refused() -> None:
    cohort = everyone(world([[0], [0, 1, 2]], items=4))
    with pytest.raises(SettingsError, match=r"client 1 has only 1 .* needs 2"):
        drawn(cohort, Negatives(2, distinct=True))


def test_no_negatives_are_refused() -> None:
    with pytest.raises(ValueError, match="per_positive"):
        Negatives(0)
