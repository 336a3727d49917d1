"""FCF of 2019: users in closed form, a gradient of the whole item table."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from privfed.channels.plain import Plain
from privfed.data.world import World
from privfed.interfaces import State
from privfed.methods.fcf_original import FCFOriginal
from tests.methods.factored import (
    MANY,
    SEEDS,
    bits,
    close,
    one_round,
    own,
    round_of,
    shaken,
)
from tests.worlds import everyone, opening, uneven, world

WORLD = uneven()
BASE = FCFOriginal(width=8, confidence=4.0, regularization=0.5)


def cost(method: FCFOriginal, y: Tensor, x: Tensor, of: World, client: int) -> Tensor:
    """sum_i c_i (p_i - <x, y_i>)^2, as the paper writes it."""
    items, labels = own(of, client)
    r = torch.zeros(len(y), dtype=torch.float64).index_add(0, items, labels)
    return ((1 + method.confidence * r) * ((r > 0).double() - y @ x).square()).sum()


def solved(method: FCFOriginal, model: State, of: World, client: int) -> Tensor:
    """A client's vector by dense normal equations."""
    y, (items, labels) = model["items"].double(), own(of, client)
    r = torch.zeros(len(y), dtype=torch.float64).index_add(0, items, labels)
    c = torch.diag(1 + method.confidence * r)
    left = y.T @ c @ y + method.regularization * torch.eye(y.shape[1])
    found: Tensor = torch.linalg.solve(left, y.T @ c @ (r > 0).double())
    return found


def test_user_vectors_solve_the_normal_equations() -> None:
    model, private = shaken(BASE, WORLD)

    scores = BASE.score(model, private, everyone(WORLD))

    for client in range(WORLD.shape.clients):
        x = solved(BASE, model, WORLD, client)
        close(scores[client], model["items"].double() @ x)


def test_a_round_is_adam_on_the_gradient_of_the_whole_cost() -> None:
    """The oracle differentiates the papers' cost by autograd, users held fixed."""
    model, private = shaken(BASE, WORLD)
    y = model["items"].double().requires_grad_()
    adam = torch.optim.Adam([y], lr=BASE.learning_rate)

    for number in range(3):
        now = {"items": y.detach()}
        xs = [solved(BASE, now, WORLD, c) for c in range(WORLD.shape.clients)]
        total, _ = one_round(BASE, model, private, WORLD, number=number)
        model = BASE.apply(model, total)
        adam.zero_grad()
        loss = BASE.regularization * y.square().sum()
        for client, x in enumerate(xs):
            loss = loss + cost(BASE, y, x, WORLD, client)
        [y.grad] = torch.autograd.grad(loss, [y])
        adam.step()
        torch.testing.assert_close(
            model["items"].double(), y.detach(), rtol=1e-3, atol=1e-4
        )


def test_shards_do_not_change_a_bit() -> None:
    bits(replace(BASE, width=32), uneven(MANY, items=151))


def test_every_client_sends_every_row_and_the_bytes_of_a_table() -> None:
    model, private = shaken(BASE, WORLD)

    sent = BASE.train(model, private, everyone(WORLD), round_of(0)).uploads

    assert len(sent.rows["items"].item) == WORLD.shape.clients * 60
    assert (sent.bytes_up(WORLD.shape) == 60 * 8 * 4).all()


def test_an_upload_gives_away_exactly_what_was_taken() -> None:
    """Rank one, and the rows of items not taken lie on one line: the rest are taken.

    The server knows the item table. It reads the direction of x, fits the slope of
    most rows, and calls the others interactions.
    """
    of = uneven((3, 9, 17, 1, 5, 12), items=60)
    model, private = shaken(BASE, of)
    rows = BASE.train(model, private, everyone(of), round_of(0)).uploads.rows["items"]

    for client in range(of.shape.clients):
        sent = rows.value[rows.sender == client].double()
        _, singular, right = torch.linalg.svd(sent)
        assert singular[1] < 1e-5 * singular[0]
        beta, z = sent @ right[0], model["items"].double() @ right[0]
        slope = (beta / z).median()  # minus |x|^2
        residual = (beta - slope * z).abs()
        found = (residual > 1e-3 * beta.abs().max()).nonzero()[:, 0]
        assert found.tolist() == sorted(own(of, client)[0].tolist())


def test_an_item_taken_twice_counts_with_twice_the_weight() -> None:
    twice, once = world([[1, 4, 1]], 8), world([[1, 4]], 8)
    heavy = replace(once, train=replace(once.train, label=torch.tensor([2.0, 1.0])))
    model, private = shaken(BASE, twice)

    sent = BASE.train(model, private, everyone(twice), round_of(0)).uploads
    known = BASE.train(model, private, everyone(heavy), round_of(0)).uploads

    assert torch.equal(sent.rows["items"].value, known.rows["items"].value)


def test_a_client_without_interactions_sends_zeros() -> None:
    of = uneven((0, 3))
    model, private = shaken(BASE, of)
    trained = BASE.train(model, private, everyone(of), round_of(0))

    rows = trained.uploads.rows["items"]
    assert not rows.value[rows.sender == 0].any()
    assert rows.value[rows.sender == 1].any()


def test_training_changes_nothing_that_it_was_given() -> None:
    model, private = shaken(BASE, WORLD)
    before = model["items"].clone()

    total, _ = one_round(BASE, model, private, WORLD)
    BASE.apply(model, total)

    assert torch.equal(model["items"], before)


def test_a_round_of_nobody_changes_nothing() -> None:
    model, _ = BASE.init(WORLD.shape, SEEDS("init"))
    channel = Plain()

    total = channel.close(channel.open(opening(WORLD.shape))).total

    assert BASE.apply(model, total) is model


@pytest.mark.parametrize(
    "setting",
    ["width", "regularization", "learning_rate", "start_size", "confidence"],
)
def test_an_unusable_setting_is_named(setting: str) -> None:
    given: dict[str, Any] = {setting: -1}
    with pytest.raises(ValueError, match=setting):
        FCFOriginal(**given)
