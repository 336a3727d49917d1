"""Candidates of all clients, ranked together, against scikit-learn and by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from privfed.adversary import NotApplicable, Prior
from privfed.data.world import World
from privfed.guesses import Interactions
from privfed.methods.fcf import FCF
from privfed.metrics.leakage import judge
from privfed.metrics.leakage.interactions import Ranked
from privfed.metrics.leakage.judged import Judged, Pooled, Truth
from privfed.seeds import Seeds
from tests.worlds import uneven, world

WORLD = uneven()
EVERY = torch.ones(8, dtype=torch.bool)


def judged(guess: Interactions, of: World = WORLD) -> Judged:
    truth = Truth(of, {}, {}, EVERY)
    prior = Prior(truth.world.shape, Seeds(0)("attack"), FCF())
    found = judge(guess, truth, prior)
    assert isinstance(found, Judged)
    return found


def claim(score: Tensor) -> Interactions:
    """All items of all clients, in the order of a table (clients, items)."""
    clients, items = WORLD.shape.clients, WORLD.shape.items
    return Interactions(
        torch.arange(clients),
        torch.arange(clients).repeat_interleave(items),
        torch.arange(items).repeat(clients),
        score,
    )


def real() -> Tensor:
    mask = torch.zeros(8, 60, dtype=torch.bool)
    mask[WORLD.train.owner, WORLD.train.item] = True
    return mask.flatten()


@given(st.integers(0, 1000), st.sampled_from([2, 7, 10_000]))
def test_pooled_figures_are_scikit_learns(seed: int, levels: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    score = torch.randint(levels, (480,), generator=rng).double()
    scores = judged(claim(score)).scores
    false, true, _ = roc_curve(real(), score, drop_intermediate=False)

    assert scores["auc"].mean() == pytest.approx(roc_auc_score(real(), score))
    for key, rate in (("1e-3", 1e-3), ("1e-2", 1e-2)):
        best = max(t for f, t in zip(false, true, strict=True) if f <= rate)
        assert scores[f"tpr@fpr_{key}"].mean() == pytest.approx(best)
    best = max((1 + true - false) / 2)
    assert scores["balanced_accuracy"].mean() == pytest.approx(best)
    each = [
        roc_auc_score(real().view(8, 60)[k], score.view(8, 60)[k])
        for k in range(8)
        if k != 1  # has no interaction
    ]
    assert scores["auc_by_client"].mean() == pytest.approx(sum(each) / 7)


def test_a_client_drawn_twice_counts_twice() -> None:
    score = torch.rand(480, generator=torch.Generator().manual_seed(0)).double()
    auc = judged(claim(score)).scores["auc"]
    assert isinstance(auc, Pooled)
    rows = torch.tensor([0, 4, 4, 7])

    expected = roc_auc_score(
        real().view(8, 60)[rows].flatten(), score.view(8, 60)[rows].flatten()
    )
    assert auc.statistic(rows) == pytest.approx(expected)
    assert math.isnan(auc.statistic(torch.tensor([1, 1])))  # has no interaction


def test_scores_that_compare_within_a_client_only_fail_the_pooled_figures() -> None:
    shift = torch.arange(8).repeat_interleave(60).double()
    scores = judged(claim(real().double() - 10 * shift)).scores

    assert scores["auc_by_client"].mean() == 1.0
    assert scores["auc"].mean() < 0.8


def test_the_floor_is_popularity_and_the_advantage_is_over_it() -> None:
    common = WORLD.popularity.double().repeat(8)
    found = judged(claim(common))

    assert found.floor["auc"].mean() == found.scores["auc"].mean()
    assert found.advantage().mean() == 0.0
    assert judged(claim(real().double())).advantage().mean() > 0.25


def test_what_is_no_candidate_is_missing_from_coverage_alone() -> None:
    of = world([[0, 1, 2, 3], [4]], 10)
    guess = Interactions(
        torch.tensor([0, 1]),
        torch.tensor([0, 0, 0, 1, 1]),
        torch.tensor([0, 1, 9, 4, 8]),
        torch.tensor([2.0, 1.0, 0.0, 2.0, 0.0]),
    )
    scores = judged(guess, of).scores

    assert scores["coverage"].mean() == pytest.approx((0.5 + 1) / 2)
    assert scores["auc"].mean() == 1.0


def test_ties_at_the_threshold_are_all_accused() -> None:
    guess = claim(torch.zeros(480))
    ranked = Ranked.of(guess, real())

    assert ranked.found(0.01, torch.arange(8)) == 0.0
    assert ranked.area(torch.arange(8)) == pytest.approx(0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_not_finite_is_refused(bad: float) -> None:
    score = torch.zeros(480)
    score[3] = bad
    with pytest.raises(ArithmeticError, match="not finite"):
        judged(claim(score))


def test_candidates_of_one_kind_are_said_so() -> None:
    guess = Interactions(
        torch.tensor([0]), torch.tensor([0]), WORLD.train.item[:1], torch.ones(1)
    )
    truth = Truth(WORLD, {}, {}, EVERY)
    found = judge(guess, truth, Prior(WORLD.shape, Seeds(0)("attack"), FCF()))

    assert isinstance(found, NotApplicable)
    assert "alike" in found.reason
