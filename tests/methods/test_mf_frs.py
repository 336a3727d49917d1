"""MF-FRS: private user vectors, uncut item gradients added up."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from privfed.channels.plain import Plain
from privfed.data.cohort import cohort_of
from privfed.data.world import World
from privfed.defenses.imia_regularizer import Anchor
from privfed.defenses.regula import Pull
from privfed.errors import SettingsError
from privfed.interfaces import Round, State
from privfed.methods.mf_frs import MFFRS
from tests.methods.factored import (
    MANY,
    SEEDS,
    bits,
    close,
    leaves_alone,
    one_round,
    round_of,
    shaken,
)
from tests.worlds import checkerboard, everyone, opening, shards, uneven

WORLD = uneven()
BASE = MFFRS(width=8)
FORMS = [
    BASE,
    replace(BASE, negatives=3, own_rate=0.1),
    replace(BASE, negatives_resample="round", learning_rate=0.3),
    replace(BASE, loss="bpr"),
    replace(BASE, loss="bpr", negatives=2),
]


def drawn(method: MFFRS, of: World, client: int, round: Round) -> Tensor:
    """The package's own draws of one client: (positives, 1 + negatives) items."""
    flat = method.laid(cohort_of(of, torch.tensor([client])), round)
    return flat.item[flat.place]


def mean_loss(method: MFFRS, score: Tensor) -> Tensor:
    """Of one client, from its samples' scores (positives, 1 + negatives)."""
    if method.loss == "bpr":
        return -logsigmoid(score[:, :1] - score[:, 1:]).mean()
    label = torch.zeros_like(score)
    label[:, 0] = 1
    return binary_cross_entropy_with_logits(score, label)


def twin(
    method: MFFRS, model: State, private: State, of: World, client: int, round: Round
) -> tuple[Tensor, Tensor, float]:
    """One client by autograd: its new vector, its change of the table, its loss."""
    u = private["users"][client].double().clone().requires_grad_()
    v = model["items"].double().clone().requires_grad_()
    items = drawn(method, of, client, round)
    if not len(items):
        return u.detach(), torch.zeros_like(v), 0.0
    loss = mean_loss(method, v[items] @ u)
    du, dv = torch.autograd.grad(loss, [u, v])
    rate = method.learning_rate
    after = (u - rate * method.own_rate * du).detach()
    return after, -rate * dv, float(loss.detach())


@pytest.mark.parametrize("method", FORMS)
def test_a_round_equals_its_per_client_twin(method: MFFRS) -> None:
    model, private = shaken(method, WORLD)

    total, after = one_round(method, model, private, WORLD)
    updated = method.apply(model, total)

    expected = model["items"].double()
    for client in range(WORLD.shape.clients):
        u, change, _ = twin(method, model, private, WORLD, client, round_of(3))
        close(after["users"][client], u)
        expected = expected + change
    close(updated["items"], expected)


@pytest.mark.parametrize("method", FORMS)
def test_the_loss_is_the_mean_over_samples(method: MFFRS) -> None:
    model, private = shaken(method, WORLD)
    for cohort in shards(WORLD, 1):
        trained = method.train(model, private, cohort, round_of(3))
        known = twin(method, model, private, WORLD, int(cohort.clients), round_of(3))[2]
        assert float(trained.loss) == pytest.approx(known, rel=1e-5)


@pytest.mark.parametrize("method", FORMS)
def test_the_loss_of_groups_is_that_of_each_client(method: MFFRS) -> None:
    score = torch.randn(
        4, 6, 1 + method.negatives, generator=Generator().manual_seed(0)
    )
    known = [float(mean_loss(method, one)) for one in score]
    assert method.group_loss(score).tolist() == pytest.approx(known, rel=1e-5)


@pytest.mark.parametrize("method", FORMS)
def test_shards_do_not_change_a_bit(method: MFFRS) -> None:
    bits(replace(method, width=32), uneven(MANY, items=150))


def regula(items: list[int], model: State) -> Pull:
    popular = torch.tensor(items)
    return Pull(popular, {"items": model["items"][popular]}, 0.7, 0.4)


def test_a_round_under_regula_equals_its_per_client_twin() -> None:
    """The released loss, written down sample by sample."""
    model, private = shaken(BASE, WORLD)
    popular = [8, 40, 7]
    term = regula(popular, model)
    guarded = replace(round_of(3), penalties=[term])
    weight = torch.tensor([9.0, 4.0, 1.0]).double() / 14
    for cohort in shards(WORLD, 100):
        trained = BASE.train(model, private, cohort, guarded)
        table = torch.zeros(len(cohort.clients), 60, 8).double()
        rows = trained.uploads.rows["items"]
        table[rows.sender, rows.item] = rows.value.double()
        for at, client in enumerate(cohort.clients.tolist()):
            u = private["users"][client].double().clone().requires_grad_()
            v = model["items"].double().clone().requires_grad_()
            items = drawn(BASE, WORLD, client, round_of(3))
            if not len(items):
                continue
            flat, fixed = items.flatten(), v.detach()[popular]
            other = ~torch.isin(flat, torch.tensor(popular))
            near = torch.cosine_similarity(fixed[:, None], v[flat[other]][None], dim=2)
            p = torch.softmax(u, 0)
            apart = (p * (p.log() - torch.log_softmax(fixed, 1))).sum(1) / 8
            loss = mean_loss(BASE, v[items] @ u)
            loss = loss - 0.7 * (weight * near.mean(1)).sum()
            loss = loss - 0.4 * (weight * apart).sum()
            du, dv = torch.autograd.grad(loss, [u, v])
            close(trained.private["users"][at], (u - du).detach())
            close(table[at], -dv)


def test_shards_do_not_change_a_bit_under_a_penalty() -> None:
    of = uneven(MANY, items=150)
    method = replace(BASE, width=32)
    model, private = shaken(method, of)
    guarded = replace(round_of(3), penalties=[regula([3, 70, 9], model)])

    def moved(size: int) -> dict[int, Tensor]:
        found = {}
        for cohort in shards(of, size):
            trained = method.train(model, private, cohort, guarded)
            rows = trained.uploads.rows["items"]
            for at, client in enumerate(cohort.clients.tolist()):
                own = rows.value[rows.sender == at].flatten()
                found[client] = torch.cat([trained.private["users"][at], own])
        return found

    whole, single = moved(100), moved(1)
    for client, value in whole.items():
        assert torch.equal(value, single[client]), client


def test_a_term_without_a_gradient_is_refused() -> None:
    model, private = shaken(BASE, WORLD)
    held = replace(round_of(0), penalties=[Anchor(0.1)])

    with pytest.raises(SettingsError, match="mf_frs takes one local step"):
        BASE.train(model, private, everyone(WORLD), held)


def test_negatives_are_drawn_once_or_every_round() -> None:
    model, private = shaken(BASE, WORLD)

    def items(method: MFFRS, number: int) -> list[int]:
        trained = method.train(model, private, everyone(WORLD), round_of(number))
        return [int(i) for i in trained.uploads.rows["items"].item]

    fresh = replace(BASE, negatives_resample="round")
    assert items(BASE, 0) == items(BASE, 1)
    assert items(fresh, 0) != items(fresh, 1)


def test_an_upload_has_each_touched_row_once_in_order() -> None:
    model, private = shaken(BASE, WORLD)
    rows = BASE.train(model, private, everyone(WORLD), round_of(0)).uploads.rows

    key = rows["items"].sender * 60 + rows["items"].item
    assert (key.diff() > 0).all()
    own = WORLD.train
    touched = set(key.tolist())
    assert {int(c * 60 + i) for c, i in zip(own.owner, own.item, strict=True)} < touched


@pytest.mark.parametrize("loss", ["bce", "bpr"])
def test_it_learns_the_checkerboard(loss: Any) -> None:
    of = checkerboard()
    method = MFFRS(width=4, loss=loss, start_size=0.1)
    model, private = method.init(of.shape, SEEDS("init"))

    for number in range(200):
        total, private = one_round(method, model, private, of, number=number)
        model = method.apply(model, total)

    scores = method.score(model, private, everyone(of))
    mine = torch.zeros(scores.shape, dtype=torch.bool)
    mine[of.train.owner, of.train.item] = True
    for client in range(of.shape.clients):
        assert scores[client][mine[client]].min() > scores[client][~mine[client]].max()


def test_a_client_without_interactions_keeps_its_vector_and_sends_nothing() -> None:
    of = uneven((0, 3))
    model, private = shaken(BASE, of)

    trained = BASE.train(model, private, cohort_of(of, torch.tensor([0])), round_of(0))

    assert torch.equal(trained.private["users"], private["users"][:1])
    assert not len(trained.uploads.rows["items"].item)
    assert float(trained.loss) == 0.0


def test_training_changes_nothing_that_it_was_given() -> None:
    leaves_alone(BASE, WORLD)


def test_a_round_of_nobody_changes_nothing() -> None:
    model, _ = BASE.init(WORLD.shape, SEEDS("init"))
    channel = Plain()

    total = channel.close(channel.open(opening(WORLD.shape))).total

    assert BASE.apply(model, total) is model


@pytest.mark.parametrize(
    "setting", ["width", "learning_rate", "own_rate", "negatives", "start_size"]
)
def test_an_unusable_setting_is_named(setting: str) -> None:
    given: dict[str, Any] = {setting: 0}
    with pytest.raises(ValueError, match=setting):
        MFFRS(**given)
