"""Attributes of users as classes, and their way into a world."""

import os
from dataclasses import replace

import pytest
import torch

from privfed.data.attributes import Labels, classes
from privfed.data.interactions import Interactions
from privfed.data.load import DataSettings, load
from privfed.data.splits import by_clients, leave_one_out
from privfed.data.worlds import checkerboard, demo

CODES = ("1", "18", "25", "35", "45", "50", "56")  # of MovieLens-1M


def test_ages_in_years_fall_into_the_groups_of_movielens_1m() -> None:
    years = tuple(map(str, (7, 17, 18, 24, 25, 34, 35, 44, 45, 49, 50, 55, 73)))
    found = classes({"age": years})["age"]

    assert found.label.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6]
    assert len(found.names) == 7


def test_the_codes_of_movielens_1m_name_their_groups() -> None:
    assert classes({"age": CODES})["age"].label.tolist() == [*range(7)]


@pytest.mark.parametrize("word", ["", "?", "-3", "0", "121", "24.5", "n/a"])
def test_an_age_that_says_nothing_is_unknown(word: str) -> None:
    assert classes({"age": (word, "20", "30")})["age"].label.tolist() == [-1, 1, 2]


def test_genders_are_read_however_they_are_spelled() -> None:
    found = classes({"gender": ("M", "f", "Female", " male", "", "x")})["gender"]

    assert found.names == ("F", "M")
    assert found.label.tolist() == [1, 0, 0, 1, -1, -1]


def test_occupations_are_the_words_of_the_source_in_order() -> None:
    words = classes({"occupation": ("writer", "", "artist", "writer")})["occupation"]
    codes = classes({"occupation": ("10", "2", "0", "10")})["occupation"]

    assert words.names == ("artist", "writer")
    assert words.label.tolist() == [1, -1, 0, 1]
    assert codes.names == ("0", "2", "10")
    assert codes.label.tolist() == [2, 1, 0, 2]


def test_what_tells_no_user_from_another_is_left_out() -> None:
    assert classes({"gender": ("M", "M"), "age": ("", ""), "zip": ("1", "2")}) == {}
    assert classes({}) == {}


def small(attributes: dict[str, tuple[str, ...]]) -> Interactions:
    return replace(checkerboard(4), attributes=attributes)


def test_a_world_carries_the_attributes_and_its_fingerprint_does_not_change() -> None:
    without = leave_one_out(checkerboard(4))
    world = leave_one_out(small({"gender": ("M", "F", "M", "")}))

    assert without.attributes == {}
    assert world.attributes["gender"].label.tolist() == [1, 0, 1, -1]
    assert world.fingerprint == without.fingerprint
    assert by_clients(small({"age": CODES[:4]}), 0).attributes["age"].names


def test_attributes_move_with_their_world() -> None:
    world = leave_one_out(small({"gender": ("M", "F", "M", "F")}))
    moved = world.to(torch.device("meta")).attributes["gender"]

    assert moved.label.device.type == "meta"
    assert moved.names == ("F", "M")


def test_labels_keep_their_names_on_the_way() -> None:
    labels = Labels(("a", "b"), torch.tensor([0, 1, -1]))
    assert labels.to(torch.device("cpu")).names == ("a", "b")


def test_who_a_demo_user_is_follows_from_taste_with_exceptions() -> None:
    """Users of one occupation share items; ages differ by occupation; not wholly."""
    data = demo()
    known = classes(data.attributes)
    taken = torch.zeros(data.users, data.items)
    taken[data.user, data.item] = 1.0
    taken /= taken.norm(dim=1, keepdim=True)
    alike = (taken @ taken.T).fill_diagonal_(0)
    trade = known["occupation"].label
    same = (trade[:, None] == trade) & ~torch.eye(data.users, dtype=torch.bool)

    assert set(known) == {"gender", "age", "occupation"}
    assert alike[same].mean() > 1.1 * alike.mean()
    assert (known["gender"].label == 1).double().mean() < 0.75
    years = known["age"].label.double()
    means = torch.stack([years[trade == one].mean() for one in range(6)])
    assert means.max() - means.min() > 0.8
    assert demo().attributes == data.attributes
    assert demo(seed=1).attributes != data.attributes


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.skipif("PRIVFED_DATA" not in os.environ, reason="PRIVFED_DATA is not set")
@pytest.mark.parametrize(
    ("name", "women", "groups"), [("ml-100k", 273, 943), ("ml-1m", 1709, 6040)]
)
def test_movielens_tells_gender_age_and_occupation(
    name: str, women: int, groups: int
) -> None:
    known = load(DataSettings(data=name, features=())).world.attributes

    assert {n: len(one.names) for n, one in known.items()} == {
        "gender": 2,
        "age": 7,
        "occupation": 21,
    }
    assert int((known["gender"].label == 0).sum()) == women
    assert all(int((one.label >= 0).sum()) == groups for one in known.values())
