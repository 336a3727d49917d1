"""DL-FRS: an MLP on a private user vector, one local step, gradients added up."""

from dataclasses import replace
from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy

from privfed.channels.plain import Plain
from privfed.data.cohort import cohort_of
from privfed.data.world import World
from privfed.devices.batches import collect
from privfed.devices.dpsgd import InteractionDP
from privfed.interfaces import State
from privfed.methods.dl_frs import DLFRS
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
from tests.worlds import checkerboard, everyone, opening, uneven, world

WORLD = uneven()
BASE = DLFRS(learning_rate=0.2)
FORMS = [
    BASE,
    replace(BASE, negatives=1),
    replace(BASE, repeats="once", negatives=9),
    replace(BASE, negatives_exclude="nothing"),
    replace(BASE, negatives_resample="round", item_rate=3.0),
]


def drawn(method: DLFRS, of: World, client: int) -> tuple[Tensor, Tensor]:
    """The package's own draws of one client: items and labels of all samples."""
    here = round_of(3)
    once = method.negatives_resample == "once"
    stream = (here.always if once else here.stream).of("negatives")
    samples = collect(cohort_of(of, torch.tensor([client])), method.sampling(), stream)
    items = samples.item[0][samples.slot[0][samples.real[0]]]
    labels = torch.zeros(items.shape, dtype=torch.float64)
    labels[:, 0] = 1.0
    return items.flatten(), labels.flatten()


def twin(
    method: DLFRS, model: State, private: State, of: World, client: int
) -> tuple[dict[str, Tensor], Tensor, float]:
    """One client by autograd: its uploads, its new vector, its mean loss.

    With ``repeats="once"`` gradients of samples' rows are written over one another.
    """
    u = private["user"][client].double().clone().requires_grad_()
    p = {n: v.double().clone().requires_grad_() for n, v in model.items()}
    items, labels = drawn(method, of, client)
    if not len(items):
        return {n: torch.zeros_like(v) for n, v in p.items()}, u.detach(), 0.0
    rows = p["items"].detach()[items].requires_grad_()
    x = torch.cat([u.expand(len(rows), -1), rows], 1)
    for layer in ("mlp0", "mlp1"):
        x = (x @ p[f"{layer}.weight"].T + p[f"{layer}.bias"]).relu()
    chance = (x @ p["out.weight"].T + p["out.bias"]).sigmoid()[:, 0]
    loss = binary_cross_entropy(chance, labels)
    names = [name for name in p if name != "items"]
    du, dv, *rest = torch.autograd.grad(loss, [u, rows, *(p[n] for n in names)])
    table = torch.zeros_like(p["items"])
    for item, slope in zip(items, dv, strict=True):
        table[item] = slope if method.repeats == "once" else table[item] + slope
    found = {n: g * -method.learning_rate for n, g in zip(names, rest, strict=True)}
    found["items"] = table * -method.learning_rate * method.item_rate
    return found, (u - method.learning_rate * du).detach(), float(loss.detach())


@pytest.mark.parametrize("method", FORMS)
def test_a_round_equals_its_per_client_twin(method: DLFRS) -> None:
    model, private = shaken(method, WORLD)

    total, after = one_round(method, model, private, WORLD)
    updated = method.apply(model, total)

    expected = {name: value.double() for name, value in model.items()}
    for client in range(WORLD.shape.clients):
        sent, user, _ = twin(method, model, private, WORLD, client)
        close(after["user"][client], user)
        expected = {name: value + sent[name] for name, value in expected.items()}
    for name, value in expected.items():
        close(updated[name], value.detach())


def test_a_repeated_negative_counts_twice_or_once() -> None:
    """The two forms differ in item rows alone, and only where an item repeats."""
    many = replace(BASE, negatives=9)
    model, private = shaken(many, WORLD)

    each, _ = one_round(many, model, private, WORLD)
    once, _ = one_round(replace(many, repeats="once"), model, private, WORLD)

    assert not torch.allclose(each.tables["items"], once.tables["items"])
    for name, value in each.dense.items():
        assert torch.equal(once.dense[name], value), name


def test_shards_do_not_change_a_bit() -> None:
    bits(DLFRS(), uneven(MANY, items=150))


def test_the_loss_is_the_mean_over_samples() -> None:
    model, private = shaken(BASE, WORLD)
    for client in (0, 3, 7):
        cohort = cohort_of(WORLD, torch.tensor([client]))
        trained = BASE.train(model, private, cohort, round_of(3))
        _, _, known = twin(BASE, model, private, WORLD, client)
        assert float(trained.loss) == pytest.approx(known, rel=1e-5)


def test_scores_are_the_logits_of_the_twin() -> None:
    for width in (8, 16):
        method = replace(BASE, width=width)
        model, private = shaken(method, WORLD)
        scores = method.score(model, private, everyone(WORLD))
        users = private["user"][:, None].expand(-1, 60, -1)
        x = torch.cat([users, model["items"].expand(len(users), -1, -1)], 2)
        for layer in ("mlp0", "mlp1"):
            x = (x @ model[f"{layer}.weight"].T + model[f"{layer}.bias"]).relu()
        known = x @ model["out.weight"].T + model["out.bias"]
        torch.testing.assert_close(scores, known[..., 0], rtol=1e-4, atol=1e-5)


def test_it_starts_as_published() -> None:
    """Normal vectors of deviation .01; He's uniform weights; no biases."""
    model, private = DLFRS().init(replace(WORLD.shape, clients=500), SEEDS("init"))

    assert 0.0095 < float(private["user"].std()) < 0.0105
    assert 0.009 < float(model["items"].std()) < 0.011
    assert len(torch.unique(private["user"])) > 3_900
    for name, fan_in in (("mlp0", 16), ("mlp1", 8), ("out", 8)):
        weight = model[f"{name}.weight"]
        assert float(weight.abs().max()) <= sqrt(6 / fan_in)
        assert not model[f"{name}.bias"].any()
    assert float(model["mlp0.weight"].abs().max()) > 0.9 * sqrt(6 / 16)


def test_dp_sgd_without_noise_and_clipping_is_plain_training() -> None:
    plain = BASE.private_training()
    model, own = shaken(plain, WORLD)
    cohort = cohort_of(WORLD, torch.tensor([4]))  # one interaction
    rule = InteractionDP(1e6, 0.0, 1.0, steps=1, expected=1.0)

    known = plain.train(model, own, cohort, round_of(3))
    found = plain.train(model, own, cohort, replace(round_of(3), privacy=rule))

    rows, sparse = found.uploads.rows["items"], known.uploads.rows["items"]
    sent = torch.zeros(60, 8)
    sent[sparse.item] = sparse.value / 5  # a mean over samples; DP-SGD sums them
    scale = float((rows.value[sparse.item] / sent[sparse.item])[0, 0])
    torch.testing.assert_close(rows.value, sent * scale, rtol=1e-3, atol=1e-6)
    for name, value in known.uploads.dense.items():
        private_value = found.uploads.dense[name]
        torch.testing.assert_close(
            private_value, value / 5 * scale, rtol=1e-3, atol=1e-6
        )


def test_it_learns_the_checkerboard() -> None:
    of = checkerboard()
    method = DLFRS(learning_rate=0.5, start_size=0.5, item_rate=4.0)
    model, private = method.init(of.shape, SEEDS("init"))

    for number in range(150):
        total, private = one_round(method, model, private, of, number=number)
        model = method.apply(model, total)

    scores = method.score(model, private, everyone(of))
    mine = torch.zeros(scores.shape, dtype=torch.bool)
    mine[of.train.owner, of.train.item] = True
    above = [s[m].mean() > s[~m].mean() + 1 for s, m in zip(scores, mine, strict=True)]
    assert all(above)


def test_training_changes_nothing_that_it_was_given() -> None:
    leaves_alone(BASE, WORLD)


def test_a_round_of_nobody_changes_nothing() -> None:
    model, _ = BASE.init(WORLD.shape, SEEDS("init"))
    channel = Plain()

    total = channel.close(channel.open(opening(WORLD.shape))).total

    assert all(v is model[n] for n, v in BASE.apply(model, total).items())


def test_a_client_without_interactions_sends_nothing() -> None:
    of = world([[], [1, 2, 3]], 60)
    model, private = shaken(BASE, of)

    trained = BASE.train(model, private, cohort_of(of, torch.tensor([0])), round_of(0))

    assert torch.equal(trained.private["user"], private["user"][:1])
    assert not len(trained.uploads.rows["items"].item)
    assert not any(value.any() for value in trained.uploads.dense.values())


@pytest.mark.parametrize(
    "setting", ["width", "learning_rate", "negatives", "start_size", "item_rate"]
)
def test_an_unusable_setting_is_named(setting: str) -> None:
    given: dict[str, Any] = {setting: -1}
    with pytest.raises(ValueError, match=setting):
        DLFRS(**given)
