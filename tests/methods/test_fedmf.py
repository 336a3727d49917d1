"""FedMF: ratings as inner products, item gradients added up."""

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from privfed.channels.plain import Plain
from privfed.data.cohort import cohort_of
from privfed.data.world import World
from privfed.errors import SettingsError
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


SEVERAL = [
    *(replace(form, local_steps=3) for form in FORMS),
    *(
        replace(form, local_steps=steps, optimizer="adam")
        for form in FORMS
        if form.steps == "all"
        for steps in (1, 4)
    ),
]


def name(method: FedMF) -> str:
    several = f"-{method.local_steps}-{method.optimizer}"
    return f"{method.steps}-{method.reads}-{method.upload}" + several


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


def repeated(
    method: FedMF, model: State, private: State, of: World, client: int
) -> tuple[Tensor, Tensor]:
    """One client with its own copies of the rows: its new vector, and what it sends."""
    items, labels = own(of, client)
    x = private["users"][client].double().requires_grad_()
    rows = model["items"].double()[items].requires_grad_()
    g, reg = method.learning_rate, method.regularization
    by = [
        torch.optim.Adam([value], lr=g)
        if method.optimizer == "adam"
        else torch.optim.SGD([value], lr=g)
        for value in (x, rows)
    ]
    parts = [[k] for k in range(len(items))]
    if method.steps == "all":
        parts = [list(range(len(items)))] if len(items) else []
    for _ in range(method.local_steps):
        for part in parts:
            error = (labels[part] - rows[part] @ x).detach()
            pull = -2 * (error[:, None] * rows[part]).sum(0) + 2 * reg * x
            before, x.grad = x.detach().clone(), pull.detach()
            by[0].step()
            read = x.detach() if method.reads == "new" else before
            rows.grad = torch.zeros_like(rows)
            slope = -2 * error[:, None] * read + 2 * reg * rows[part]
            rows.grad[part] = slope.detach()
            by[1].step()
    sent = model["items"].double()[items] - rows.detach()
    whole = torch.zeros_like(model["items"], dtype=torch.float64)
    return x.detach(), whole.index_add(0, items, sent)


@pytest.mark.parametrize("method", SEVERAL, ids=name)
def test_several_local_steps_equal_their_per_client_twin(method: FedMF) -> None:
    model, private = shaken(method, WORLD)

    total, after = one_round(method, model, private, WORLD)
    updated = method.apply(model, total)

    expected = model["items"].double()
    for client in range(WORLD.shape.clients):
        x, sent = repeated(method, model, private, WORLD, client)
        close(after["users"][client], x)
        expected = expected - sent
    close(updated["items"], expected)


@pytest.mark.parametrize(("steps", "optimizer"), [(3, "sgd"), (1, "adam"), (3, "adam")])
def test_an_item_that_is_rated_twice_has_one_copy(
    steps: int, optimizer: Literal["sgd", "adam"]
) -> None:
    of = rated(world([[2, 5, 2]], 6))
    method = replace(BASE, steps="all", local_steps=steps, optimizer=optimizer)
    model, private = shaken(method, of)
    items, labels = own(of, 0)
    x, table = private["users"][0].double(), model["items"].double().clone()
    adam = {
        n: (torch.zeros_like(v), torch.zeros_like(v))
        for n, v in (("x", x), ("y", table))
    }

    def move(n: str, slope: Tensor, step: int) -> Tensor:
        if optimizer == "sgd":
            return -method.learning_rate * slope
        first, second = adam[n]
        first.mul_(0.9).add_(0.1 * slope)
        second.mul_(0.999).add_(0.001 * slope**2)
        size = (second / (1 - 0.999**step)).sqrt() + 1e-8
        return -method.learning_rate * first / (1 - 0.9**step) / size

    for step in range(1, steps + 1):
        error = labels - table[items] @ x
        reg = method.regularization
        slope = -2 * (error[:, None] * table[items]).sum(0) + 2 * reg * x
        x = x + move("x", slope, step)
        slope = -2 * error[:, None] * x + 2 * reg * table[items]
        table = table + move(
            "y", torch.zeros_like(table).index_add(0, items, slope), step
        )

    trained = method.train(model, private, everyone(of), round_of(0))
    rows = trained.uploads.rows["items"]

    assert rows.item.tolist() == [2, 5]
    close(rows.value, (table - model["items"])[[2, 5]])
    close(trained.private["users"][0], x)


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


@pytest.mark.parametrize("method", FORMS + SEVERAL, ids=name)
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


def test_what_is_public_of_a_pass_is_what_devices_do() -> None:
    method = replace(BASE, steps="all", reads="new", local_steps=2)

    told = method.pass_(5)

    assert (told.rate, told.decay, told.factor) == (0.02, 0.05, 2.0)
    assert (told.moves, told.reads, told.mean) == ("all", "new", False)
    assert (told.steps, told.optimizer) == (2, "sgd")


def test_dp_takes_its_own_local_steps() -> None:
    for method in (
        replace(BASE, local_steps=2),
        replace(BASE, steps="all", optimizer="adam"),
    ):
        with pytest.raises(SettingsError, match="local_steps"):
            method.private_training()
    assert BASE.private_training().upload == "full"


def test_adam_steps_on_the_sum() -> None:
    with pytest.raises(ValueError, match="steps=all"):
        FedMF(optimizer="adam")


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
        ("local_steps", 0),
    ],
)
def test_an_unusable_setting_is_named(setting: str, value: float) -> None:
    given: dict[str, Any] = {setting: value}
    with pytest.raises(ValueError, match=setting):
        FedMF(**given)
