"""Federated BPR: private user vectors, clipped item rows added up."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from privfed.channels.plain import Plain
from privfed.data.cohort import cohort_of
from privfed.data.world import World
from privfed.devices.batches import collect
from privfed.devices.dpsgd import InteractionDP
from privfed.interfaces import Round, State
from privfed.methods.bpr import BPR
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
from tests.worlds import checkerboard, everyone, opening, shards, uneven, world

WORLD = uneven()
BASE = BPR(width=8, learning_rate=0.2, clip=0.6)
FORMS = [
    BASE,
    replace(BASE, clip=1e6, regularization=0.0),
    replace(BASE, negatives=3),
    replace(BASE, negatives_resample="round"),
    replace(BASE, negatives=2, negatives_exclude="nothing"),
]


def drawn(method: BPR, of: World, client: int, round: Round) -> Tensor:
    """The package's own draws of one client: (positives, 1 + negatives) items."""
    once = method.negatives_resample == "once"
    stream = (round.always if once else round.stream).of("negatives")
    cohort = cohort_of(of, torch.tensor([client]))
    samples = collect(cohort, method.sampling(), stream)
    return samples.item[0][samples.slot[0][samples.real[0]]]


def twin(
    method: BPR, model: State, private: State, of: World, client: int, round: Round
) -> tuple[Tensor, Tensor, float]:
    """One client by autograd: its new vector, its clipped gradient, its mean loss."""
    u = private["users"][client].double().clone().requires_grad_()
    v = model["items"].double().clone().requires_grad_()
    items = drawn(method, of, client, round)
    if not len(items):
        return u.detach(), torch.zeros_like(v), 0.0
    margin = (v[items[:, :1]] - v[items[:, 1:]]) @ u
    touched = torch.unique(items)
    size = u.square().sum() + v[touched].square().sum()
    loss = -logsigmoid(margin).sum() + method.regularization / 2 * size
    du, dv = torch.autograd.grad(loss, [u, v])
    length = dv.norm(dim=1, keepdim=True)
    dv = torch.where(length > method.clip, dv * method.clip / length, dv)
    mean = float(-logsigmoid(margin).mean().detach())
    return (u - method.learning_rate * du).detach(), dv, mean


@pytest.mark.parametrize("method", FORMS)
def test_a_round_equals_its_per_client_twin(method: BPR) -> None:
    model, private = shaken(method, WORLD)

    total, after = one_round(method, model, private, WORLD)
    updated = method.apply(model, total)

    expected = model["items"].double()
    for client in range(WORLD.shape.clients):
        u, gradient, _ = twin(method, model, private, WORLD, client, round_of(3))
        close(after["users"][client], u)
        expected = expected - method.learning_rate * gradient
    close(updated["items"], expected)


@pytest.mark.parametrize("method", FORMS)
def test_shards_do_not_change_a_bit(method: BPR) -> None:
    bits(replace(method, width=32), uneven(MANY, items=150))


def private(noise: float, clip: float = 1e6, share: float = 1.0) -> Round:
    rule = InteractionDP(clip, noise, share, steps=1, expected=5.0)
    return replace(round_of(3), privacy=rule)


def test_dp_sgd_without_noise_and_clipping_is_plain_training() -> None:
    plain = replace(BASE, clip=1e6, negatives=2).private_training()
    model, own = shaken(plain, WORLD)
    for cohort in shards(WORLD, 100):
        known = plain.train(model, own, cohort, round_of(3))
        found = plain.train(model, own, cohort, private(0.0))

        torch.testing.assert_close(
            found.private["users"], known.private["users"], rtol=1e-4, atol=1e-6
        )
        table = torch.zeros(len(cohort.clients), 60, 8)
        rows, sparse = found.uploads.rows["items"], known.uploads.rows["items"]
        table[sparse.sender, sparse.item] = sparse.value
        torch.testing.assert_close(
            rows.value, table.flatten(0, 1), rtol=1e-4, atol=1e-6
        )


def test_one_interaction_more_changes_no_more_than_the_clip() -> None:
    """User vector and item rows together: what the noise is calibrated to."""
    method = replace(BASE, negatives=2).private_training()
    clip, items = 0.3, [3, 11, 20, 41]
    full, less = world([items], 60), world([items[:-1]], 60)
    model, own = shaken(method, full)

    both = [
        method.train(model, own, everyone(of), private(0.0, clip))
        for of in (full, less)
    ]

    moved = [
        torch.cat([t.private["users"][0], t.uploads.rows["items"].value.flatten()])
        for t in both
    ]
    length = (moved[0] - moved[1]).norm() / method.learning_rate
    assert length == pytest.approx(clip, rel=1e-3)


def test_dp_noise_has_its_scale_on_every_row_and_on_the_user_vector() -> None:
    of = uneven((20,) * 30, items=50)
    method = replace(BASE, width=8, learning_rate=0.5).private_training()
    model, own = shaken(method, of)
    quiet, loud = (
        method.train(model, own, everyone(of), private(noise, clip=0.2))
        for noise in (0.0, 3.0)
    )

    rows = loud.uploads.rows["items"].value - quiet.uploads.rows["items"].value
    users = loud.private["users"] - quiet.private["users"]
    for found in (rows, users):
        assert 0.93 < found.std().item() / (0.5 * 0.2 * 3.0) < 1.07
    assert len(rows) == 30 * 50
    assert rows.any(1).all()


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_shards_do_not_change_a_bit_of_dp_sgd(share: float) -> None:
    of = uneven(MANY, items=150)
    method = replace(BASE, width=32).private_training()
    model, own = shaken(method, of)

    def changes(size: int) -> dict[int, tuple[Tensor, Tensor]]:
        found = {}
        for cohort in shards(of, size):
            trained = method.train(model, own, cohort, private(1.0, 0.3, share))
            table = trained.uploads.rows["items"].value.view(len(cohort.clients), -1)
            users = trained.private["users"]
            for client, *values in zip(cohort.clients, table, users, strict=True):
                found[int(client)] = (values[0], values[1])
        return found

    whole, single = changes(100), changes(1)
    for client, values in whole.items():
        for value, other in zip(values, single[client], strict=True):
            assert torch.equal(value, other), client


def test_the_loss_is_the_mean_over_pairs() -> None:
    model, private = shaken(BASE, WORLD)
    for cohort in shards(WORLD, 1):
        trained = BASE.train(model, private, cohort, round_of(3))
        known = twin(BASE, model, private, WORLD, int(cohort.clients), round_of(3))[2]
        assert float(trained.loss) == pytest.approx(known, rel=1e-5)


def test_no_row_of_an_upload_is_longer_than_the_clip_times_the_rate() -> None:
    model, private = shaken(BASE, WORLD)
    bound = BASE.clip * BASE.learning_rate

    rows = BASE.train(model, private, everyone(WORLD), round_of(0)).uploads.rows

    length = rows["items"].value.norm(dim=1)
    assert length.max() == pytest.approx(bound, rel=1e-5)
    assert (length < 0.99 * bound).any()  # and the others are left as they are


def test_negatives_are_drawn_once_or_every_round() -> None:
    model, private = shaken(BASE, WORLD)

    def items(method: BPR, number: int) -> list[int]:
        trained = method.train(model, private, everyone(WORLD), round_of(number))
        return [int(i) for i in trained.uploads.rows["items"].item]

    fresh = replace(BASE, negatives_resample="round")
    assert items(BASE, 0) == items(BASE, 1)
    assert items(fresh, 0) != items(fresh, 1)


def test_it_learns_the_checkerboard() -> None:
    of = checkerboard()
    method = BPR(width=4, learning_rate=0.2, regularization=0.01, start_size=0.1)
    model, private = method.init(of.shape, SEEDS("init"))

    for number in range(60):
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


def test_training_changes_nothing_that_it_was_given() -> None:
    leaves_alone(BASE, WORLD)


def test_a_round_of_nobody_changes_nothing() -> None:
    model, _ = BASE.init(WORLD.shape, SEEDS("init"))
    channel = Plain()

    total = channel.close(channel.open(opening(WORLD.shape))).total

    assert BASE.apply(model, total) is model


@pytest.mark.parametrize(
    "setting",
    ["width", "learning_rate", "clip", "negatives", "start_size", "regularization"],
)
def test_an_unusable_setting_is_named(setting: str) -> None:
    given: dict[str, Any] = {setting: -1}
    with pytest.raises(ValueError, match=setting):
        BPR(**given)
