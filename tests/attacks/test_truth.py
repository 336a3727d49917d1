"""An attack is handed uploads and nothing that names the truth."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from privfed.adversary import Attack, Prior
from privfed.attacks.items.recurrence import Recurrence
from privfed.attacks.items.sign_pc import SignPC
from privfed.attacks.items.support import Support
from privfed.data.world import Shape
from privfed.interfaces import Method
from privfed.messages import Rows, Total, Uploads
from privfed.methods.fedavg import FedAvg
from privfed.seeds import Stream
from privfed.views import TotalView, UploadsView
from tests.attacks.views import guess, prior_of, trained
from tests.worlds import uneven, world

WORLD = uneven()
ATTACKS: list[Attack] = [Support(), SignPC(), Recurrence()]


def inside(value: Any) -> Iterator[Any]:
    """A value and everything that can be reached from it."""
    yield value
    if is_dataclass(value):
        for one in fields(value):
            yield from inside(getattr(value, one.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from inside(item)
    elif isinstance(value, tuple):
        for item in value:
            yield from inside(item)


def test_a_view_holds_uploads_numbers_and_tensors_only() -> None:
    plain = (Tensor, int, float, type(None), dict, tuple)
    public = (*plain, Prior, Stream, Shape, Method)
    for view in trained(FedAvg(width=4), WORLD):
        for value in inside(view):
            assert isinstance(value, (*plain, UploadsView, Uploads, Rows)), type(value)
    for value in inside(prior_of(8, 60, 4, WORLD.popularity)):
        assert isinstance(value, (*public, str, bool)), type(value)
    assert {f.name for f in fields(TotalView)} == {"round", "clients", "total"}
    assert {f.name for f in fields(Total)} == {
        "tables",
        "senders",
        "dense",
        "weight",
        "clients",
        "users",
        "rest",
    }


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: type(a).__name__)
def test_held_out_items_change_no_guess(attack: Attack) -> None:
    train = [[0, 1], [2, 3, 4], [5]]
    one = world(train, 30, test=[[7], [8], [9]])
    other = world(train, 30, test=[[17], [18], [19]])

    found, same = (
        guess(attack, prior_of(3, 30, 4), *trained(FedAvg(width=4), of))
        for of in (one, other)
    )

    assert torch.equal(found.score, same.score)
    assert torch.equal(found.chosen, same.chosen)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: type(a).__name__)
def test_a_guess_does_not_depend_on_how_views_are_cut_or_ordered(
    attack: Attack,
) -> None:
    views = list(trained(FedAvg(width=4), WORLD))
    prior = prior_of(8, 60, 4)

    found, turned = guess(attack, prior, *views), guess(attack, prior, *views[::-1])

    assert torch.equal(found.score, turned.score)
    assert torch.equal(found.chosen, turned.chosen)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: type(a).__name__)
def test_observing_changes_no_view(attack: Attack) -> None:
    [view, *_] = trained(FedAvg(width=4), WORLD)
    before = [v.clone() for v in inside(view) if isinstance(v, Tensor)]

    guess(attack, prior_of(8, 60, 4), view)

    after = [v for v in inside(view) if isinstance(v, Tensor)]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
