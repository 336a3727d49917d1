"""Figures of membership, against scikit-learn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from privfed.adversary import NotApplicable, Prior
from privfed.data.world import Shape
from privfed.guesses import Users
from privfed.methods.fedavg import FedAvg
from privfed.metrics.leakage import judge
from privfed.metrics.leakage.judged import Judged, Truth
from privfed.metrics.leakage.users import auc, tpr
from privfed.seeds import Seeds
from tests.worlds import uneven

WORLD = uneven()
PRIOR = Prior(Shape(8, 60), Seeds(0)("attack"), FedAvg(), profiles=WORLD.train)


def truth_of(inside: Tensor) -> Truth:
    return Truth(WORLD, {}, {}, inside)


@given(st.integers(0, 2**32 - 1))
def test_figures_are_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    score, inside = rng.integers(0, 9, 60), rng.random(60) < 0.5
    inside[:2] = True, False
    false, true, _ = roc_curve(inside, score, drop_intermediate=False)
    at = torch.from_numpy(score).double(), torch.from_numpy(inside)

    assert auc(*at) == pytest.approx(roc_auc_score(inside, score))
    for level in (0.0, 0.1, 0.5):
        assert tpr(*at, level) == pytest.approx(true[false <= level + 1e-12].max())


def test_the_floor_is_the_length_of_a_profile() -> None:
    inside = WORLD.train.counts > 5  # the longer ones
    found = judge(Users(torch.arange(8), torch.zeros(8)), truth_of(inside), PRIOR)
    assert isinstance(found, Judged)
    assert found.scores["auc"].mean() == 0.5
    assert found.floor["auc"].mean() == 1.0
    blind = judge(
        Users(torch.arange(8), torch.zeros(8)),
        truth_of(inside),
        replace(PRIOR, profiles=None),
    )
    assert isinstance(blind, Judged)
    assert blind.floor["auc"].mean() == 0.5


@pytest.mark.parametrize("all_of_them", [True, False])
def test_without_members_and_others_there_is_no_figure(all_of_them: bool) -> None:
    inside = torch.full((8,), all_of_them)
    guess = Users(torch.arange(8), torch.zeros(8))
    assert isinstance(judge(guess, truth_of(inside), PRIOR), NotApplicable)


def test_a_score_that_is_not_finite_is_an_error() -> None:
    inside = torch.arange(8) < 4
    guess = Users(torch.arange(8), torch.full((8,), torch.inf))
    with pytest.raises(ArithmeticError):
        judge(guess, truth_of(inside), PRIOR)
