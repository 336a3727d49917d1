"""Claimed attributes against the true ones, by hand and against scikit-learn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score
from torch import Generator, Tensor

from privfed.adversary import NotApplicable, Prior
from privfed.data.attributes import Labels
from privfed.guesses import Attributes
from privfed.methods.fcf import FCF
from privfed.metrics.leakage import judge
from privfed.metrics.leakage.judged import Judged, Truth
from privfed.seeds import Seeds
from tests.worlds import world

EVERY = torch.ones(6, dtype=torch.bool)
GENDER = Labels(("F", "M"), torch.tensor([1, 1, 0, 1, -1, 0]))
AGE = Labels(("young", "middle", "old"), torch.tensor([0, 1, 1, 1, 2, -1]))


def judged(
    scores: dict[str, Tensor],
    known: dict[str, Labels] | None = None,
    clients: Tensor | None = None,
) -> Judged | NotApplicable:
    attributes = {"gender": GENDER, "age": AGE} if known is None else known
    people = len(next(iter(attributes.values())).label) if attributes else 6
    of = replace(world([[0]] * people, 3), attributes=attributes)
    truth = Truth(of, {}, {}, torch.ones(people, dtype=torch.bool))
    prior = Prior(of.shape, Seeds(0)("attack"), FCF())
    who = torch.arange(people) if clients is None else clients
    return judge(Attributes(who, scores), truth, prior)


def sure(label: list[int], classes: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(label), classes).double()


def test_figures_by_hand() -> None:
    found = judged(
        {"gender": sure([1, 0, 0, 1, 1, 1], 2), "age": sure([0, 0, 1, 2, 2, 2], 3)}
    )
    assert isinstance(found, Judged)
    values = {name: measure.mean() for name, measure in found.scores.items()}

    assert values["gender_accuracy"] == pytest.approx(3 / 5)  # one is not known
    assert values["age_accuracy"] == pytest.approx(3 / 5)
    assert values["accuracy"] == pytest.approx((1 + 0 + 1 + 0.5 + 1 + 0) / 6)
    # men 1, 0, 1 against women 0, 1: pairs 1-0, 1-1, 0-0, 0-1, 1-0, 1-1
    assert values["gender_auc"] == pytest.approx((1 + 0.5 + 0.5 + 0 + 1 + 0.5) / 6)
    assert found.lead == "accuracy"


def test_the_floor_names_the_commonest_value() -> None:
    found = judged({"gender": sure([0] * 6, 2), "age": sure([0] * 6, 3)})
    assert isinstance(found, Judged)
    floor = {name: measure.mean() for name, measure in found.floor.items()}

    assert floor["gender_accuracy"] == pytest.approx(3 / 5)  # everybody a man
    assert floor["age_accuracy"] == pytest.approx(3 / 5)  # everybody middle-aged
    assert floor["gender_auc"] == 0.5


@given(st.integers(0, 200))
def test_figures_are_those_of_scikit_learn(seed: int) -> None:
    rng = Generator().manual_seed(seed)
    label = torch.randint(2, (30,), generator=rng)
    label[:2] = torch.tensor([0, 1])
    group = torch.randint(5, (30,), generator=rng)
    known = {"gender": Labels(("F", "M"), label), "age": Labels(tuple("abcde"), group)}
    scores = {
        "gender": torch.randn(30, 2, generator=rng),
        "age": torch.randn(30, 5, generator=rng),
    }
    found = judged(scores, known)
    assert isinstance(found, Judged)

    difference = np.asarray(scores["gender"][:, 1] - scores["gender"][:, 0])
    assert found.scores["gender_auc"].mean() == pytest.approx(
        roc_auc_score(label, difference)
    )
    for name, true in (("gender", label), ("age", group)):
        claimed = scores[name].argmax(1)
        assert found.scores[f"{name}_accuracy"].mean() == pytest.approx(
            f1_score(true, claimed, average="micro")
        )


def test_only_the_clients_seen_count() -> None:
    found = judged({"gender": sure([1, 0], 2)}, clients=torch.tensor([0, 2]))
    assert isinstance(found, Judged)
    assert found.scores["gender_accuracy"].mean() == 1.0
    assert len(found.scores["accuracy"]) == 2


def test_the_advantage_is_over_the_floor() -> None:
    right = {"gender": sure([1, 1, 0, 1, 0, 0], 2), "age": sure([0, 1, 1, 1, 2, 0], 3)}
    found = judged(right)
    assert isinstance(found, Judged)
    floor = found.floor["accuracy"].mean()
    assert found.advantage().mean() == pytest.approx(1 - floor)


def test_where_nobody_is_known_nothing_can_be_judged() -> None:
    known = {"gender": Labels(("F", "M"), torch.full((6,), -1))}
    assert isinstance(judged({"gender": sure([0] * 6, 2)}, known), NotApplicable)
    assert isinstance(judged({"shoes": sure([0] * 6, 2)}), NotApplicable)


def test_a_score_that_is_not_finite_is_an_error() -> None:
    score = sure([0] * 6, 2)
    score[1, 1] = torch.inf
    with pytest.raises(ArithmeticError, match="finite"):
        judged({"gender": score})
