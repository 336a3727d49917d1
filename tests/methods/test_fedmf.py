"""FedMF: ratings as inner products, item gradients added up."""

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from privfed.channels.plain import Plain
from privfed.data.cohort import cohort_of
from privfed.data.world import World
from privfed.interfaces import State
from privfed.methods.fedmf import FedMF
from tests.methods.factored import (
    MANY,
    SEEDS,
    bits,
    close,
    leaves_alone,
    one_round,
    own,
    rated,
    round_of,
    shaken,
)
from tests.worlds import everyone, opening, uneven, world

WORLD = rated()
UPLOADS: tuple[Literal["part", "full"], ...] = ("part", "full")
BASE = FedMF(width=8, learning_rate=0.02, regularization=0.05)
FORMS = [
    replace(form, upload=upload)
    for form in (
        BASE,
        replace(BASE, reads="old"),
        replace(BASE, steps="all"),
        replace(BASE, steps="all", reads="old"),
    )
    for upload in UPLOADS
]


def name(method: FedMF) -> str:
    return f"{method.steps}-{method.reads}-{method.upload}"


def twin(
    method: FedMF, model: State, private: State, of: World, client: int
) -> tuple[Tensor, Tensor]:
    """One client as in the released code: its new vector, and what it subtracts."""
    x, table = private["users"][client].double(), model["items"].double()
    sent = torch.zeros_like(table)
    g, reg = method.learning_rate, method.regularization
    items, labels = own(of, client)
    if method.steps == "all" and len(items):
        errors = labels - table[items] @ x
        pull = (-2 * errors[:, None] * table[items]).sum(0)
        after = x - g * (pull + 2 * reg * x)
        read = after if method.reads == "new" else x
        for item, error in zip(items, errors, strict=True):
            sent[item] += g * (-2 * error * read + 2 * reg * table[item])
        return after, sent
    for item, label in zip(items, labels, strict=True):
        error = label - x @ table[item]
        after = x - g * (-2 * error * table[item] + 2 * reg * x)
        read = after if method.reads == "new" else x
        sent[item] += g * (-2 * error * read + 2 * reg * table[item])
        x = after
    return x, sent


@pytest.mark.parametrize("method", FORMS, ids=name)
def test_a_round_equals_its_per_client_twin(method: FedMF) -> None:
    model, private = shaken(method, WORLD)

    total, after = one_round(method, model, private, WORLD)
    updated = method.apply(model, total)

    expected = model["items"].double()
    for client in range(WORLD.shape.clients):
        x, sent = twin(method, model, private, WORLD, client)
        close(after["users"][client], x)
        expected = expected - sent
    close(updated["items"], expected)


@pytest.mark.parametrize("method", FORMS, ids=name)
def test_shards_do_not_change_a_bit(method: FedMF) -> None:
    bits(replace(method, width=20), rated(uneven(MANY, items=150)))


def test_a_full_upload_has_a_row_for_every_item_and_the_same_total() -> None:
    part, full = BASE, replace(BASE, upload="full")
    model, private = shaken(part, WORLD)
    cohort = everyone(WORLD)

    sent = full.train(model, private, cohort, round_of(0)).uploads
    short = part.train(model, private, cohort, round_of(0)).uploads

    rows = sent.rows["items"]
    assert len(rows.item) == WORLD.shape.clients * WORLD.shape.items
    moved = rows.value.any(1)
    assert torch.equal(rows.item[moved], short.rows["items"].item)
    assert torch.equal(rows.value[moved], short.rows["items"].value)
    assert (sent.bytes_up(WORLD.shape) == 60 * 8 * 4).all()
    assert torch.equal(short.bytes_up(WORLD.shape), WORLD.train.counts * (4 + 8 * 4))


def test_a_constant_start_stays_rank_one_and_says_so() -> None:
    method = FedMF(width=4, learning_rate=0.05)
    model, private = method.init(WORLD.shape, SEEDS("init"))
    for number in range(5):
        total, private = one_round(method, model, private, WORLD, number=number)
        model = method.apply(model, total)

    assert torch.linalg.matrix_rank(model["items"], rtol=1e-5) == 1
    assert model["items"].std() > 0.01  # it did learn
    assert any("rank one" in told for told in method.warnings())
    assert not replace(method, start_spread=0.1).warnings()


def test_it_learns_ratings_that_are_inner_products() -> None:
    """A checkerboard of 1 and 5: no mean of users or items can tell the two."""
    side = 12
    of = world([list(range(side))] * side, side)
    stars = torch.tensor([1.0, 5.0])[(of.train.owner + of.train.item) % 2]
    of = replace(of, train=replace(of.train, label=stars), task="rating")
    method = FedMF(width=4, learning_rate=0.02, start=0.5, start_spread=0.3)
    model, private = method.init(of.shape, SEEDS("init"))

    for number in range(80):
        total, private = one_round(method, model, private, of, number=number)
        model = method.apply(model, total)

    error = (
        method.predict(model, private, everyone(of), of.train.of(torch.arange(side)))
        - stars
    )
    assert error.square().mean() < 0.05


def test_an_item_that_is_rated_twice_is_sent_once() -> None:
    of = rated(world([[2, 5, 2]], 6))
    model, private = shaken(BASE, of)

    rows = BASE.train(model, private, everyone(of), round_of(0)).uploads.rows["items"]
    _, sent = twin(BASE, model, private, of, 0)

    assert rows.item.tolist() == [2, 5]
    close(rows.value, -sent[[2, 5]])


def test_a_client_without_ratings_keeps_its_vector_and_sends_nothing() -> None:
    of = rated(uneven((0, 3)))
    model, private = shaken(BASE, of)
    cohort = cohort_of(of, torch.tensor([0]))

    trained = BASE.train(model, private, cohort, round_of(0))

    assert torch.equal(trained.private["users"], private["users"][:1])
    assert not len(trained.uploads.rows["items"].item)
    assert trained.loss.tolist() == [0.0]


def test_training_changes_nothing_that_it_was_given() -> None:
    leaves_alone(BASE, WORLD)


def test_a_round_of_nobody_changes_nothing() -> None:
    model, _ = BASE.init(WORLD.shape, SEEDS("init"))
    channel = Plain()

    total = channel.close(channel.open(opening(WORLD.shape))).total

    assert torch.equal(BASE.apply(model, total)["items"], model["items"])


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("width", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("regularization", -1.0),
        ("start", 0.0),
        ("start", float("inf")),
        ("start_spread", -0.1),
    ],
)
def test_an_unusable_setting_is_named(setting: str, value: float) -> None:
    given: dict[str, Any] = {setting: value}
    with pytest.raises(ValueError, match=setting):
        FedMF(**given)
