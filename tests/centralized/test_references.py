"""Centralized references: real libraries on worlds whose answer is known."""

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from privfed.centralized import libraries, measure, rankers, raters
from privfed.centralized.vbpr import VBPR
from privfed.data.splits import by_ratio, leave_one_out
from privfed.data.world import Ragged, World, ragged
from privfed.data.worlds import demo
from privfed.errors import MissingExtra, SettingsError
from privfed.evaluation.judge import task_of
from privfed.evaluation.protocol import Protocol
from privfed.methods.bpr import BPR
from privfed.references import popularity
from privfed.seeds import Seeds
from tests.worlds import checkerboard, everyone, world

PROTOCOL = Protocol(at=(10,))
needs = {
    name: pytest.mark.skipif(
        find_spec(name) is None,
        reason=f"{name} of the extra baselines is not installed",
    )
    for name in ("cornac", "implicit", "surprise")
}
RATERS = [
    pytest.param(raters.pmf, marks=needs["surprise"], id="pmf"),
    pytest.param(raters.svdpp, marks=needs["surprise"], id="svdpp"),
    pytest.param(raters.mf, marks=needs["cornac"], id="mf"),
]
RANKERS = [
    pytest.param(rankers.bpr, marks=needs["cornac"], id="bpr"),
    pytest.param(rankers.als, marks=needs["implicit"], id="als"),
]


def separates(scores: Tensor, of: World) -> bool:
    """Whether every client's own items come before all others."""
    mine = torch.zeros(scores.shape, dtype=torch.bool)
    mine[of.train.owner, of.train.item] = True
    return all(
        bool(row[own].min() > row[~own].max())
        for row, own in zip(scores, mine, strict=True)
    )


@pytest.mark.parametrize("fit", RANKERS)
def test_rankers_learn_the_checkerboard(fit: Callable[..., Tensor]) -> None:
    of = checkerboard()

    scores = fit(of, 0, width=4)

    assert scores.shape == (of.shape.clients, of.shape.items)
    assert separates(scores, of)
    assert torch.equal(scores, fit(of, 0, width=4))


@pytest.mark.parametrize("fit", RANKERS)
def test_rankers_beat_popularity_on_the_demo(fit: Callable[..., Tensor]) -> None:
    of = leave_one_out(demo())

    found = measure.ranked(of, fit(of, 0, width=8), of.test, PROTOCOL, 0)
    floor = measure.ranked(of, rankers.popularity(of), of.test, PROTOCOL, 0)

    assert found["ndcg@10"] > 1.1 * floor["ndcg@10"]


@pytest.mark.parametrize("fit", RATERS)
def test_raters_beat_the_means_on_the_demo(fit: Callable[..., Tensor]) -> None:
    of = by_ratio(demo(), 0, task="rating")

    found = measure.rated(fit(of, of.test, 0), of.test)["rmse"]

    for mean in (raters.user_mean, raters.item_mean):
        assert found < 0.97 * measure.rated(mean(of, of.test), of.test)["rmse"]


@pytest.mark.parametrize("fit", RATERS)
def test_predictions_stay_in_the_range_of_training_ratings(
    fit: Callable[..., Tensor],
) -> None:
    of = by_ratio(demo(users=20, items=30), 0, task="rating")

    found = fit(of, of.test, 0, learning_rate=0.05)

    assert found.shape == of.test.item.shape
    assert found.min() >= of.train.label.min()
    assert found.max() <= of.train.label.max()


@needs["implicit"]
def test_als_lowers_the_cost_of_the_original_fcf() -> None:
    """Its user vectors solve the same normal equations, given its item vectors."""
    of = checkerboard(clients=6, items=10)

    scores = rankers.als(of, 0, width=2, confidence=4.0, regularization=0.1, epochs=50)

    taken = torch.zeros(scores.shape)
    taken[of.train.owner, of.train.item] = 1
    cost = ((1 + 4 * taken) * (taken - scores).square()).sum()
    assert cost < 0.05 * (1 + 4 * taken)[taken > 0].sum()


def features_world(wanted: bool = True) -> World:
    """New items that nobody trained on; their features tell whom they are for."""
    side = 20
    kind = torch.arange(2 * side) % 2
    train = [[i for i in range(side) if i % 2 == c % 2] for c in range(12)]
    held = [[side + i for i in range(side) if i % 2 == c % 2] for c in range(12)]
    given = torch.eye(2)[kind] if wanted else torch.ones(2 * side, 2)
    return world(train, 2 * side, held, {"kind": given})


def test_vbpr_ranks_items_that_nobody_trained_on_by_their_features() -> None:
    settings = VBPR(width=4, epochs=60, batch=64, learning_rate=0.05, penalty=0.0)
    of, blind = features_world(), features_world(wanted=False)

    auc = [_auc(settings.scores(each, 0)[:, 20:], of) for each in (of, blind)]

    assert auc[0] > 0.95
    assert 0.3 < auc[1] < 0.7


def _auc(scores: Tensor, of: World) -> float:
    mine = torch.zeros(of.shape.clients, of.shape.items, dtype=torch.bool)
    mine[of.test.owner, of.test.item] = True
    mine = mine[:, 20:]
    wins = [
        (row[own][:, None] > row[~own][None]).float().mean()
        for row, own in zip(scores, mine, strict=True)
    ]
    return float(torch.stack(wins).mean())


def test_vbpr_returns_the_epoch_that_is_judged_best() -> None:
    of = features_world()
    seen: list[Tensor] = []

    def judge(scores: Tensor) -> float:
        seen.append(scores)
        return -abs(len(seen) - 2)  # the second is best

    best = VBPR(width=4, epochs=20, every=5).scores(of, 0, judge)

    assert len(seen) == 4
    assert torch.equal(best, seen[1])
    assert not torch.equal(best, seen[3])


def test_vbpr_needs_features() -> None:
    with pytest.raises(SettingsError, match="features"):
        VBPR().scores(checkerboard(), 0)


def test_a_centralized_ranker_is_judged_as_a_run_is() -> None:
    """Popularity through this door is the reference that every run prints."""
    of = leave_one_out(demo())
    task = task_of(BPR(), of, PROTOCOL, Seeds(3))

    found = measure.ranked(of, popularity(of).expand(300, -1), of.test, PROTOCOL, 3)

    [floor] = task.references().values()
    known = task.scores(floor)
    assert found == {name: score.mean() for name, score in known.items()}


def test_means_are_those_that_every_run_prints() -> None:
    of = by_ratio(demo(), 0, task="rating")

    for mean, name in ((raters.user_mean, "user"), (raters.item_mean, "item")):
        found = mean(of, of.test)
        assert torch.equal(found, _slow_mean(of, of.test, name))


def _slow_mean(of: World, held: Ragged, by: str) -> Tensor:
    key = of.train.owner if by == "user" else of.train.item
    asked = held.owner if by == "user" else held.item
    label = of.train.label.double()
    found = [
        label[key == k].mean() if (key == k).any() else label.mean() for k in asked
    ]
    return torch.stack(found)


@needs["cornac"]
def test_cornac_gets_every_client_and_item_under_its_own_number() -> None:
    of = world([[], [3, 1], [0], []], 6)
    of = replace(of, train=replace(of.train, label=torch.tensor([3.0, 1.0, 5.0])))

    data = libraries.cornac_data(of, 0)

    assert (data.num_users, data.num_items) == (4, 6)
    told = set(zip(*(part.tolist() for part in data.uir_tuple), strict=True))
    assert told == {(1, 3, 3.0), (1, 1, 1.0), (2, 0, 5.0)}


@needs["cornac"]
def test_a_pair_that_occurs_twice_counts_once() -> None:
    twice = ragged(1, torch.zeros(3).long(), torch.tensor([2, 0, 2]), torch.ones(3))
    of = replace(world([[0]], 4), train=twice)

    assert len(libraries.cornac_data(of, 0).uir_tuple[0]) == 2


def test_an_extra_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("privfed.data.encoders.extras.find_spec", lambda _: None)
    of = checkerboard()

    fits: list[Callable[[], Tensor]] = [
        lambda: rankers.bpr(of),
        lambda: rankers.als(of),
        lambda: raters.pmf(of, of.train),
        lambda: raters.mf(of, of.train),
        lambda: raters.svdpp(of, of.train),
    ]
    for fit in fits:
        with pytest.raises(MissingExtra, match=r"pip install 'privfed\[baselines\]'"):
            fit()


def test_scores_that_are_no_numbers_are_an_error() -> None:
    of = leave_one_out(demo(users=20, items=30))
    scores = torch.full((20, 30), torch.nan)

    with pytest.raises(ArithmeticError, match="NaN"):
        measure.ranked(of, scores, of.test, Protocol("full"), 0)
    with pytest.raises(ArithmeticError, match="finite"):
        measure.rated(torch.full(of.test.label.shape, torch.nan), of.test)


def test_everybody_is_ranked_in_the_full_protocol_too() -> None:
    of = checkerboard(clients=4, items=8)
    of = replace(of, test=of.train, train=everything_but(of))
    scores = torch.zeros(4, 8)
    scores[of.test.owner, of.test.item] = 1.0

    found = measure.ranked(of, scores, of.test, Protocol("full", at=(1,)), 0)

    assert found == {"hr@1": 1.0, "ndcg@1": 1.0}
    assert len(everyone(of).item) == 4


def everything_but(of: World) -> Ragged:
    """One training pair a client, of an item that it does not have in test."""
    owner = torch.arange(of.shape.clients)
    return ragged(of.shape.clients, owner, 1 - owner % 2, torch.ones(len(owner)))
