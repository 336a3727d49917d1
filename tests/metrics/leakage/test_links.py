"""Figures of links between uploads, against a loop over clients."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from privfed.adversary import NotApplicable, Prior
from privfed.data.world import Shape
from privfed.guesses import Links
from privfed.methods.fedavg import FedAvg
from privfed.metrics.leakage import judge
from privfed.metrics.leakage.judged import Judged, Truth
from privfed.seeds import Seeds
from tests.worlds import uneven

WORLD = uneven()
PRIOR = Prior(Shape(8, 60), Seeds(0)("attack"), FedAvg())
TRUTH = Truth(WORLD, {}, {}, torch.ones(8, dtype=torch.bool))


def figures(guess: Links) -> Judged:
    found = judge(guess, TRUTH, PRIOR)
    assert isinstance(found, Judged)
    return found


@given(st.integers(0, 2**32 - 1))
def test_figures_are_those_of_a_loop_over_clients(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clients, others = torch.tensor([0, 2, 3, 6]), torch.tensor([1, 2, 3, 5, 6])
    score = torch.from_numpy(rng.integers(0, 4, (4, 5)).astype(np.float64))

    found = figures(Links(clients, others, score, (0, 1)))

    linked, reciprocal, area = [], [], []
    for row, client in enumerate(clients.tolist()):
        place = others.tolist().index(client) if client in others else None
        if place is None:
            continue
        s = score[row].numpy()
        ranks = []
        for _ in range(400):  # ties in a random order
            order = np.lexsort((rng.random(5), -s))
            ranks.append(1 + int(np.where(order == place)[0][0]))
        linked.append(np.mean(np.array(ranks) == 1))
        reciprocal.append(np.mean(1 / np.array(ranks)))
        area.append(roc_auc_score(np.arange(5) == place, s))
    assert len(found.scores["linked"]) == 3
    assert found.scores["linked"].mean() == pytest.approx(np.mean(linked), abs=0.06)
    expected = np.mean(reciprocal)
    assert found.scores["reciprocal_rank"].mean() == pytest.approx(expected, abs=0.06)
    assert found.scores["auc"].mean() == pytest.approx(np.mean(area))


def test_the_floor_is_a_blind_guess() -> None:
    clients = torch.arange(4)
    found = figures(Links(clients, clients, torch.eye(4), (0, 1)))

    assert found.scores["linked"].mean() == 1
    assert found.floor["linked"].mean() == pytest.approx(1 / 4)
    assert found.floor["auc"].mean() == pytest.approx(1 / 2)
    mean = (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4
    assert found.floor["reciprocal_rank"].mean() == pytest.approx(mean)
    assert found.advantage().mean() == pytest.approx(3 / 4)


def test_nobody_in_both_rounds_is_no_figure() -> None:
    guess = Links(torch.tensor([0, 1]), torch.tensor([2]), torch.zeros(2, 1), (0, 1))
    assert isinstance(judge(guess, TRUTH, PRIOR), NotApplicable)


def test_a_score_that_is_not_finite_is_an_error() -> None:
    one = torch.tensor([0])
    with pytest.raises(ArithmeticError):
        judge(Links(one, one, torch.full((1, 1), torch.nan), (0, 1)), TRUTH, PRIOR)
