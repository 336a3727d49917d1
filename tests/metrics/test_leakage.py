"""Leakage figures against scikit-learn, client by client."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score
from torch import Tensor

from privfed.adversary import Prior
from privfed.data.world import Ragged, Shape, ragged
from privfed.guesses import Items
from privfed.methods.fedavg import FedAvg
from privfed.metrics.leakage import items as leakage
from privfed.metrics.leakage.items import prior_guess, score
from privfed.seeds import Seeds

PRIOR = Prior(Shape(30, 40), Seeds(0)("attack"), FedAvg())


def truth_of(real: Tensor) -> Ragged:
    owner, item = real.nonzero(as_tuple=True)
    return ragged(len(real), owner, item, torch.ones(len(item)))


def guess_of(scores: Tensor, chosen: Tensor) -> Items:
    return Items(torch.arange(len(scores)), scores, chosen)


seeds = st.integers(0, 2**32 - 1)


@given(seeds)
def test_figures_are_scikit_learns_for_each_client(seed: int) -> None:
    rng = np.random.default_rng(seed)
    real = rng.random((5, 12)) < 0.4
    real[:, 0], real[:, 1] = True, False
    chosen = rng.random((5, 12)) < 0.4
    scores = rng.integers(0, 6, (5, 12)).astype(np.float32)  # many ties
    found = score(
        guess_of(torch.from_numpy(scores), torch.from_numpy(chosen)),
        truth_of(torch.from_numpy(real)),
    )

    for client in range(5):
        wanted = precision_recall_fscore_support(
            real[client], chosen[client], average="binary", zero_division=0
        )
        figures = [float(found[k][client]) for k in ("precision", "recall", "f1")]
        assert figures == pytest.approx(list(wanted[:3]))
        assert float(found["auc"][client]) == pytest.approx(
            roc_auc_score(real[client], scores[client])
        )


@given(seeds)
def test_f1_at_count_is_the_mean_over_random_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    real = rng.random(8) < 0.5
    real[0] = True
    scores = rng.integers(0, 3, 8).astype(np.float64)
    # replacing each tie by every rotation of its members is a fair tie break
    levels = [np.flatnonzero(scores == value) for value in np.unique(scores)[::-1]]
    left, hits = int(real.sum()), 0.0
    for level in levels:
        taken = min(left, len(level))
        turns = [np.roll(level, turn)[:taken] for turn in range(len(level))]
        hits += float(np.mean([real[turn].sum() for turn in turns]))
        left -= taken
    found = score(
        guess_of(torch.from_numpy(scores)[None], torch.zeros(1, 8, dtype=torch.bool)),
        truth_of(torch.from_numpy(real)[None]),
    )

    assert float(found["f1_at_count"]) == pytest.approx(hits / real.sum())


def test_a_perfect_attack_scores_one_and_its_opposite_nothing() -> None:
    real = torch.rand(6, 20, generator=torch.Generator().manual_seed(0)) < 0.3
    perfect = score(guess_of(real.float(), real), truth_of(real))
    opposite = score(guess_of(-real.float(), ~real), truth_of(real))

    assert all(bool((value == 1).all()) for value in perfect.values())
    assert all(bool((opposite[k] == 0).all()) for k in ("precision", "f1", "auc"))


def test_equal_scores_are_a_coin_toss() -> None:
    real = torch.rand(6, 20, generator=torch.Generator().manual_seed(0)) < 0.3
    found = score(guess_of(torch.zeros(6, 20), real), truth_of(real))

    assert found["auc"].tolist() == [0.5] * 6
    assert found["f1_at_count"].tolist() == pytest.approx((real.sum(1) / 20).tolist())


def test_clients_are_matched_by_number_not_by_position() -> None:
    real = torch.eye(4, dtype=torch.bool)
    seen = torch.tensor([3, 1])
    found = score(Items(seen, real[seen].float(), real[seen]), truth_of(real))

    assert found["f1"].tolist() == [1.0, 1.0]


def test_a_client_without_items_is_undefined_and_one_with_all_has_no_auc() -> None:
    real = torch.tensor([[False, False], [True, True], [True, False]])
    found = score(guess_of(torch.rand(3, 2), real), truth_of(real))

    assert found["f1"].isnan().tolist() == [True, False, False]
    assert found["auc"].isnan().tolist() == [True, True, False]


def test_choosing_nothing_scores_nothing() -> None:
    real = torch.ones(1, 3, dtype=torch.bool)
    found = score(guess_of(torch.rand(1, 3), ~real), truth_of(real))

    assert [float(found[k]) for k in ("precision", "recall", "f1")] == [0, 0, 0]


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    real = torch.rand(9, 20, generator=generator) < 0.3
    guess = guess_of(torch.rand(9, 20, generator=generator), real.flip(0))
    whole = score(guess, truth_of(real))
    monkeypatch.setattr(leakage, "_CELLS", 45)

    for name, value in score(guess, truth_of(real)).items():
        torch.testing.assert_close(value, whole[name], equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_score_that_is_not_finite_is_an_error(bad: float) -> None:
    real = torch.eye(2, dtype=torch.bool)
    scores = torch.tensor([[0.0, 1.0], [bad, 0.0]])

    with pytest.raises(ArithmeticError, match="not finite"):
        score(guess_of(scores, real), truth_of(real))


def test_with_popularity_the_baseline_claims_the_most_popular() -> None:
    counts = torch.arange(40).roll(7)
    guess = prior_guess(replace(PRIOR, popularity=counts), torch.arange(30), 3.4)

    assert guess.chosen.shape == guess.score.shape == (30, 40)
    assert guess.chosen[5].nonzero().flatten().tolist() == [4, 5, 6]
    assert int(guess.score[29].argmax()) == 6


def test_without_popularity_the_baseline_is_at_chance() -> None:
    real = torch.rand(30, 40, generator=torch.Generator().manual_seed(0)) < 0.25
    guess = prior_guess(PRIOR, torch.arange(30), 10.0)
    found = score(guess, truth_of(real))

    assert guess.chosen.sum(1).tolist() == [10] * 30
    assert set(found["auc"].tolist()) == {0.5}
    assert 0.15 < float(found["f1"].mean()) < 0.35


def test_a_blind_baseline_is_keyed_by_client() -> None:
    whole = prior_guess(PRIOR, torch.arange(30), 10.0).chosen
    part = prior_guess(PRIOR, torch.tensor([7, 2]), 10.0).chosen

    assert torch.equal(part, whole[[7, 2]])
    assert not torch.equal(whole[0], whole[1])


@pytest.mark.parametrize("count", [-1.0, 41.0, float("nan")])
def test_an_impossible_count_is_refused(count: float) -> None:
    with pytest.raises(ValueError, match="mean_count"):
        prior_guess(PRIOR, torch.arange(30), count)
