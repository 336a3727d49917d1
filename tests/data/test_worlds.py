"""Generated worlds: the same every time, and with the answer they promise."""

import torch

from privfed.channels.plain import Plain
from privfed.data.load import DataSettings, load
from privfed.data.worlds import checkerboard, demo
from privfed.methods.pfedrec import PFedRec
from privfed.metrics.score import means
from privfed.rounds import Setup, run


def test_the_demo_is_the_same_every_time_and_another_for_another_seed() -> None:
    assert demo().fingerprint == demo().fingerprint
    assert demo().fingerprint != demo(seed=1).fingerprint


def test_the_demo_has_a_long_tail_and_two_modalities() -> None:
    data = demo()
    counts = torch.bincount(data.item, minlength=data.items).sort().values

    assert set(data.features) == {"image", "text"}
    assert counts[-data.items // 10 :].sum() > 0.25 * len(data)
    assert counts[: data.items // 2].sum() < 0.3 * len(data)
    assert counts[0] > 0


def test_demo_ratings_follow_taste_and_are_stars() -> None:
    data = demo()
    assert data.rating is not None
    assert set(data.rating.tolist()) == {1.0, 2.0, 3.0, 4.0, 5.0}
    for key, count in ((data.item, data.items), (data.user, data.users)):
        total = torch.zeros(count).index_add(0, key, data.rating)
        mean = total / torch.bincount(key, minlength=count)
        assert (data.rating - mean[key]).std() < 0.95 * data.rating.std()


def test_nobody_meets_an_item_twice_in_the_demo() -> None:
    data = demo()
    pairs = data.user * data.items + data.item

    assert len(torch.unique(pairs)) == len(pairs)


def test_features_tell_tastes_in_the_demo() -> None:
    """Items that one user took look more alike than items at large."""
    data = demo()
    for table in data.features.values():
        alike = table @ table.T
        taken = torch.zeros(data.users, data.items)
        taken[data.user, data.item] = 1.0
        together = taken.T @ taken
        together.fill_diagonal_(0)
        at_large = alike[~torch.eye(data.items, dtype=torch.bool)].mean()
        assert (alike * together).sum() / together.sum() > at_large + 0.1


def test_a_recommender_beats_popularity_on_the_demo() -> None:
    world = load(DataSettings(features=())).world
    asked = Setup(world, PFedRec(), Plain(), rounds=40)

    outcome = run(asked)
    task = outcome.task
    reached = means([*task.scores(outcome.state.best_test).items()])
    floor = means([*task.scores(task.references()["popularity"]).items()])

    assert reached["hr@10"] > 1.2 * floor["hr@10"]
    assert reached["ndcg@10"] > 1.2 * floor["ndcg@10"]


def test_a_checkerboard_user_takes_every_other_item() -> None:
    data = checkerboard(6)

    assert len(data) == 18
    assert bool(((data.user + data.item) % 2 == 0).all())
