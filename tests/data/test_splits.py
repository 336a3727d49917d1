"""Splits partition the interactions, and hold out what they say."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from privfed.data import splits
from privfed.data.interactions import DataError, Interactions, Scale
from privfed.data.world import Ragged, World


def interactions(times: list[list[int]], dated: bool = True) -> Interactions:
    """Users with an item for each time; rows sorted as readers sort them."""
    users = [sorted(mine) for mine in times]
    user = [at for at, mine in enumerate(users) for _ in mine]
    item = [n for mine in users for n in range(len(mine))]
    return Interactions(
        name="made",
        users=len(users),
        items=max([*item, 0]) + 1,
        user=torch.tensor(user, dtype=torch.int64),
        item=torch.tensor(item, dtype=torch.int64),
        rating=torch.arange(1.0, len(user) + 1),
        time=torch.tensor([t for mine in users for t in mine]) if dated else None,
    )


def pairs(part: Ragged) -> list[tuple[int, int]]:
    return list(zip(part.owner.tolist(), part.item.tolist(), strict=True))


def everything(world: World) -> list[tuple[int, int]]:
    return [
        p for part in (world.train, world.validation, world.test) for p in pairs(part)
    ]


worlds = st.lists(st.lists(st.integers(0, 9), max_size=12), min_size=1, max_size=9)


@given(worlds)
def test_leave_one_out_equals_a_plain_loop(times: list[list[int]]) -> None:
    world = splits.leave_one_out(interactions(times))

    train, validation, test = [], [], []
    for user, mine in enumerate(times):
        items = list(range(len(mine)))
        if len(items) >= 3:
            test.append((user, items.pop()))
            validation.append((user, items.pop()))
        train += [(user, item) for item in items]
    assert pairs(world.train) == train
    assert pairs(world.validation) == validation
    assert pairs(world.test) == test


def bought(items: list[list[int]], count: int = 10) -> Interactions:
    """Users with these items, in the order of time."""
    return Interactions(
        name="made",
        users=len(items),
        items=count,
        user=torch.tensor([u for u, mine in enumerate(items) for _ in mine]).long(),
        item=torch.tensor([item for mine in items for item in mine]).long(),
    )


baskets = st.lists(st.lists(st.integers(0, 9), max_size=8), min_size=1, max_size=9)


@given(baskets)
def test_warm_holds_out_only_what_somebody_else_trains_on(
    items: list[list[int]],
) -> None:
    world = splits.warm(bought(items))

    trained = pairs(world.train)
    for user, item in pairs(world.validation) + pairs(world.test):
        assert any(who != user and what == item for who, what in trained)
        assert (user, item) not in trained


@given(baskets)
def test_warm_loses_nothing_and_leaves_everybody_a_training_item(
    items: list[list[int]],
) -> None:
    world = splits.warm(bought(items))

    whole = [(user, item) for user, mine in enumerate(items) for item in mine]
    assert sorted(everything(world)) == sorted(whole)
    assert world.test.counts.equal(world.validation.counts)
    assert bool((world.test.counts <= 1).all())
    assert bool((world.train.counts >= torch.tensor([*map(bool, items)])).all())


@given(st.lists(st.lists(st.integers(0, 9), max_size=8, unique=True), max_size=9))
def test_warm_is_leave_one_out_where_no_item_is_cold(items: list[list[int]]) -> None:
    forth, back = [*range(10)], [*range(9, -1, -1)]  # these two train on everything
    data = bought([*items, forth, back])

    assert splits.warm(data).fingerprint == splits.leave_one_out(data).fingerprint


def test_warm_moves_cold_items_back_and_holds_out_the_next_latest() -> None:
    # 9 is last for both users and would be nobody's training item; 8 likewise
    world = splits.warm(bought([[1, 2, 3, 4, 9], [4, 3, 2, 8, 9], [3, 4, 1, 2, 5]]))

    assert pairs(world.test) == [(0, 4), (1, 2), (2, 2)]
    assert pairs(world.validation) == [(0, 3), (1, 3), (2, 1)]
    assert {(0, 9), (1, 9), (1, 8), (2, 5)} <= set(pairs(world.train))


def test_warm_never_holds_out_a_pair_that_its_user_repeats() -> None:
    world = splits.warm(bought([[1, 2, 3, 4, 4], [1, 2, 3, 4, 5], [5, 4, 3, 2, 1]]))

    assert (0, 4) not in pairs(world.test)
    assert pairs(world.train).count((0, 4)) == 2


@given(worlds, st.integers(0, 5))
def test_by_ratio_partitions_in_the_shares_of_each_user(
    times: list[list[int]], seed: int
) -> None:
    data = interactions(times)
    world = splits.by_ratio(data, seed)

    whole = list(zip(data.user.tolist(), data.item.tolist(), strict=True))
    assert sorted(everything(world)) == whole
    for user, mine in enumerate(times):
        held = int(len(mine) * 0.1 + 0.5)
        assert int(world.test.counts[user]) == held
        assert int(world.validation.counts[user]) == held


def test_by_ratio_depends_on_the_seed_alone() -> None:
    data = interactions([list(range(50))])

    first, again, other = (splits.by_ratio(data, seed) for seed in (0, 0, 1))

    assert pairs(first.test) == pairs(again.test) != pairs(other.test)
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_by_ratio_does_not_depend_on_the_order_of_rows() -> None:
    data = interactions([list(range(20)), list(range(20))])
    flipped = data.item.reshape(2, 20).flip(1).flatten()
    other = Interactions("made", 2, 20, data.user, flipped)

    assert set(pairs(splits.by_ratio(data, 3).test)) == set(
        pairs(splits.by_ratio(other, 3).test)
    )


def test_by_ratio_holds_out_every_item_about_equally_often() -> None:
    data = interactions([list(range(10))] * 2000)

    counts = torch.bincount(splits.by_ratio(data, 0).test.item, minlength=10)

    assert counts.sum() == 2000
    assert bool(((counts - 200).abs() < 5 * (200 * 0.9) ** 0.5).all())


def test_training_keeps_one_interaction_whatever_the_ratios() -> None:
    data = interactions([[1], [1, 2], [1, 2, 3]])

    world = splits.by_ratio(data, 0, (0.02, 0.49, 0.49))

    assert bool((world.train.counts == 1).all())


@pytest.mark.parametrize(
    "ratios", [(0.8, 0.1, 0.2), (0, 0.5, 0.5), (1.2, -0.1, -0.1), (float("nan"), 0, 1)]
)
def test_ratios_must_be_shares(ratios: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="ratios must be shares"):
        splits.by_ratio(interactions([[1, 2]]), 0, ratios)


def test_given_follows_the_source() -> None:
    data = interactions([[1, 2, 3, 4]])
    part = torch.tensor([2, 0, 1, 0], dtype=torch.int8)
    world = splits.given(Interactions("made", 1, 4, data.user, data.item, part=part))

    assert pairs(world.train) == [(0, 1), (0, 3)]
    assert pairs(world.validation) == [(0, 2)]
    assert pairs(world.test) == [(0, 0)]


def test_given_needs_a_split_and_rating_needs_ratings() -> None:
    data = interactions([[1, 2, 3]])
    bare = Interactions("bare", 1, 3, data.user, data.item)

    with pytest.raises(DataError, match="fixes no split; choose leave-one-out"):
        splits.given(bare)
    with pytest.raises(DataError, match="no ratings to predict; choose a method"):
        splits.leave_one_out(bare, "rating")


def test_labels_are_ratings_only_where_these_are_the_task() -> None:
    data = interactions([[1, 2, 3, 4]])

    ratings = splits.leave_one_out(data, "rating")
    ones = splits.leave_one_out(data)

    assert (ratings.task, ones.task) == ("rating", "ranking")
    assert ratings.test.label.tolist() == [4.0]
    assert ones.train.label.tolist() == [1.0, 1.0]
    assert ratings.fingerprint != ones.fingerprint


def test_features_and_negatives_pass_through() -> None:
    data = interactions([[1, 2, 3]])
    features = {"text": torch.ones(3, 7)}
    negatives = torch.tensor([[0, 1]])
    full = Interactions(
        "full", 1, 3, data.user, data.item, features=features, candidates=negatives
    )

    world = splits.leave_one_out(full)

    assert world.candidates is negatives
    assert world.shape.widths == {"text": 7}
    assert world.features is features


def test_no_split_changes_what_it_was_given() -> None:
    data = interactions([[1, 2, 3, 4], [5, 6, 7]])
    before = (data.user.clone(), data.item.clone(), data.fingerprint)

    splits.by_ratio(data, 0)
    splits.leave_one_out(data)

    assert data.user.equal(before[0])
    assert data.item.equal(before[1])
    assert data.fingerprint == before[2]


def test_the_scale_is_the_sources_or_that_of_the_ratings() -> None:
    data = interactions([[1, 2, 3, 4]])
    bare = replace(data, scale=None)
    stated = replace(data, scale=Scale(0.5, 5.0, 0.5))

    assert bare.rating is not None
    ends = (float(bare.rating.min()), float(bare.rating.max()))
    assert splits.by_ratio(bare, 0, task="rating").shape.scale == ends
    assert splits.by_ratio(stated, 0, task="rating").shape.scale == (0.5, 5.0)
    assert splits.by_ratio(stated, 0).shape.scale is None
