"""FedRec: virtual ratings hide rated items; FedRec++ takes them out again."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from privfed.channels.denoiser import Denoiser
from privfed.channels.plain import Plain
from privfed.data.cohort import cohort_of
from privfed.data.world import World
from privfed.devices.virtual import unrated
from privfed.errors import SettingsError
from privfed.interfaces import State
from privfed.methods.fedmf import FedMF
from privfed.methods.fedrec import NOISE, FedRec
from privfed.views import TotalView, UploadsView
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
from tests.worlds import everyone, opening, shards, uneven, world

WORLD = rated()
BASE = FedRec(width=8, learning_rate=0.3, regularization=0.05, local_steps=3)
MEAN, HYBRID = replace(BASE, fill="mean"), replace(BASE, fill="hybrid")
FORMS = [
    replace(MEAN, virtual=0),
    MEAN,
    replace(MEAN, virtual=3),
    HYBRID,
    replace(HYBRID, virtual=2, denoise=True),
    replace(MEAN, denoise=True),
]
LATE = 12  # a round after the first ``predict_after``


def name(method: FedRec) -> str:
    return f"{method.virtual}-{method.fill}" + "-denoise" * method.denoise


def fakes_of(method: FedRec, of: World, client: int, number: int) -> list[int]:
    """The package's own draw of a client's virtual items."""
    cohort = cohort_of(of, torch.tensor([client]))
    draws = round_of(number).stream.of("virtual")
    item, real = unrated(cohort, method.virtual, draws)
    return [int(i) for i in item[real]]


def twin(
    method: FedRec, model: State, private: State, of: World, client: int, number: int
) -> tuple[Tensor, Tensor, Tensor]:
    """One client: its new vector, its gradient by item, and that of the virtual ones.

    Written as the released batch code is.
    """
    u, v = private["users"][client].double(), model["items"].double()
    rate = method.learning_rate * method.decay**number
    reg = method.regularization
    items, labels = own(of, client)
    real, fake = torch.zeros_like(v), torch.zeros_like(v)
    grad_u, count = torch.zeros_like(u), len(items)
    if not count:
        return u, real, fake
    for i, r in zip(items, labels, strict=True):
        error = r - u @ v[i]
        grad_u += -error * v[i] + reg * u
        real[i] += -error * u + reg * v[i]
    local = u.clone()
    for _ in range(method.local_steps):
        pull = torch.zeros_like(u)
        for i, r in zip(items, labels, strict=True):
            pull += -(r - local @ v[i]) * v[i] + reg * local
        local = local - rate * pull / len(items)
    predicts = method.fill == "hybrid" and number > method.predict_after
    for i in fakes_of(method, of, client, number) if method.virtual else []:
        error = (local @ v[i] if predicts else labels.mean()) - u @ v[i]
        fake[i] += -error * u + reg * v[i]
        if not method.denoise:
            grad_u += -error * v[i] + reg * u
            count += 1
    return u - rate * grad_u / count, real, fake


@pytest.mark.parametrize("number", [2, LATE])
@pytest.mark.parametrize("method", FORMS, ids=name)
def test_a_round_equals_its_per_client_twin(method: FedRec, number: int) -> None:
    model, private = shaken(method, WORLD)
    model = {**model, "server.rounds": torch.tensor(float(number))}

    total, after = one_round(method, model, private, WORLD, number=number)
    updated = method.apply(model, total)

    table = model["items"].double()
    total_gradient, senders = torch.zeros_like(table), torch.zeros(len(table))
    for client in range(WORLD.shape.clients):
        u, real, fake = twin(method, model, private, WORLD, client, number)
        close(after["users"][client], u)
        total_gradient += real if method.denoise else real + fake
        senders += real.any(1)
        senders += 0 if method.denoise else fake.any(1)
    rate = method.learning_rate * method.decay**number
    mean = total_gradient / senders.clamp_min(1)[:, None]
    close(updated["items"], table - rate * mean)
    assert float(updated["server.rounds"]) == number + 1


@pytest.mark.parametrize("number", [2, LATE])
@pytest.mark.parametrize("method", FORMS, ids=name)
def test_shards_do_not_change_a_bit(method: FedRec, number: int) -> None:
    bits(replace(method, width=20), rated(uneven(MANY, items=150)), number)
    bits(replace(method, width=20), rated(uneven(MANY, items=33)), number)


def rounds(method: FedRec, count: int, of: World = WORLD) -> tuple[State, State]:
    model, private = method.init(of.shape, SEEDS("init"))
    for number in range(count):
        total, private = one_round(method, model, private, of, number=number)
        model = method.apply(model, total)
    return model, private


def test_a_denoising_client_makes_it_lossless() -> None:
    """Fifteen rounds, past the change to predicted ratings: those of rho 0."""
    method = FedRec(width=8, virtual=2, predict_after=5)
    plain, own_plain = rounds(replace(method, virtual=0), 15)
    denoised, own_denoised = rounds(replace(method, denoise=True), 15)
    noisy, _ = rounds(method, 15)

    torch.testing.assert_close(denoised["items"], plain["items"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        own_denoised["users"], own_plain["users"], rtol=1e-3, atol=1e-4
    )
    assert (noisy["items"] - plain["items"]).abs().max() > 0.05


@pytest.mark.parametrize("share", [1, 2, 50])
def test_virtual_items_are_unrated_distinct_and_as_many_as_asked(share: int) -> None:
    for cohort in shards(WORLD, 100):
        item, real = unrated(cohort, share, round_of(0).stream)
        for k, client in enumerate(cohort.clients.tolist()):
            drawn = item[k][real[k]].tolist()
            mine = own(WORLD, client)[0].tolist()
            assert len(drawn) == min(share * len(mine), 60 - len(mine))
            assert len(set(drawn)) == len(drawn)
            assert not set(drawn) & set(mine)


def test_virtual_items_are_drawn_uniformly_and_anew_each_round() -> None:
    of = rated(world([[0, 1]] * 400, 12))
    both = [unrated(everyone(of), 1, round_of(number).stream) for number in range(2)]
    draws = [item[real] for item, real in both]

    assert not torch.equal(*draws)
    seen = torch.bincount(torch.cat(draws), minlength=12)
    assert seen[:2].tolist() == [0, 0]
    assert (seen[2:] - 160).abs().max() < 60  # five deviations


def test_the_order_of_rows_tells_nothing() -> None:
    model, private = shaken(BASE, WORLD)
    for cohort in shards(WORLD, 100):
        rows = BASE.train(model, private, cohort, round_of(0)).uploads.rows["items"]
        pairs = rows.sender * 60 + rows.item
        assert torch.equal(pairs, torch.unique(pairs))


def test_the_server_behind_a_denoiser_sees_no_virtual_table() -> None:
    method = replace(BASE, denoise=True)
    model, private = shaken(method, WORLD)
    sent = method.train(model, private, everyone(WORLD), round_of(0)).uploads
    channel = Denoiser()

    opened, view = channel.send(channel.open(opening(WORLD.shape)), sent)
    delivered = channel.close(opened)
    total, (closing,) = delivered.total, delivered.views

    assert isinstance(view, UploadsView)
    assert set(sent.rows) == {"items", NOISE}
    assert set(view.uploads.rows) == set(view.items) == {"items"}
    noise = sent.bytes_up(WORLD.shape) - view.bytes_up
    fakes = torch.bincount(sent.rows[NOISE].sender, minlength=WORLD.shape.clients)
    assert torch.equal(noise, fakes * (4 + 8 * 4))
    plain = Plain()
    opened, _ = plain.send(plain.open(opening(WORLD.shape)), sent)
    known = plain.close(opened).total
    for table, value in known.tables.items():
        assert torch.equal(total.tables[table], value)
    assert isinstance(closing, TotalView)
    assert closing.total is total


def test_a_denoiser_refuses_methods_that_send_it_nothing() -> None:
    method = FedMF(width=4)
    model, private = method.init(WORLD.shape, SEEDS("init"))
    sent = method.train(model, private, everyone(WORLD), round_of(0)).uploads
    channel = Denoiser()

    with pytest.raises(SettingsError, match="fedrec_pp"):
        channel.send(channel.open(opening(WORLD.shape)), sent)


def test_fedrec_pp_warns_that_the_virtual_rows_are_seen() -> None:
    assert any("denoiser" in told for told in replace(BASE, denoise=True).warnings())
    assert not BASE.warnings()


def test_predictions_stay_on_the_scale() -> None:
    model, private = shaken(BASE, WORLD, size=3.0)
    pairs = WORLD.train.of(torch.arange(8))

    def found(scale: tuple[float, float] | None) -> Tensor:
        shape = replace(WORLD.shape, scale=scale)
        cohort = everyone(replace(WORLD, shape=shape))
        return BASE.predict(model, private, cohort, pairs)

    for low, high in ((1.0, 5.0), (0.5, 4.0)):
        assert (found((low, high)).min(), found((low, high)).max()) == (low, high)
        assert torch.equal(found((low, high)), found(None).clamp(low, high))


def test_a_client_that_rated_nearly_everything_adds_what_is_left() -> None:
    of = rated(world([list(range(9))], 10))
    model, private = shaken(BASE, of)

    rows = BASE.train(model, private, everyone(of), round_of(0)).uploads.rows["items"]

    assert rows.item.tolist() == list(range(10))


def test_a_client_without_ratings_keeps_its_vector_and_sends_nothing() -> None:
    of = rated(uneven((0, 3)))
    for method in FORMS:
        model, private = shaken(method, of)
        trained = method.train(
            model, private, cohort_of(of, torch.tensor([0])), round_of(LATE)
        )
        assert torch.equal(trained.private["users"], private["users"][:1])
        assert not any(len(rows.item) for rows in trained.uploads.rows.values())


def test_rows_from_everybody_are_averaged_over_everybody() -> None:
    """As a defense leaves them that fills every row: no count of raters is left."""
    method = replace(BASE, denoise=True)
    model, private = shaken(method, WORLD)
    total, _ = one_round(method, model, private, WORLD)
    same = total.senders["items"]
    filled = replace(total, senders={"items": same, NOISE: same})

    moved = method.apply(model, filled)["items"] - model["items"]

    step = total.tables["items"] - total.tables[NOISE]
    torch.testing.assert_close(moved, step * 0.3 / total.weight)


def test_what_is_public_of_a_pass_is_what_devices_do() -> None:
    told = BASE.pass_(2)

    assert told.rate == pytest.approx(0.3 * 0.9**2)
    assert (told.decay, told.factor, told.mean) == (0.05, 1.0, True)
    assert told.moves == "all"
    assert told.reads == "old"
    assert told.steps == 1


def test_training_changes_nothing_that_it_was_given() -> None:
    leaves_alone(BASE, WORLD)


def test_a_round_of_nobody_only_counts() -> None:
    model, _ = BASE.init(WORLD.shape, SEEDS("init"))
    channel = Plain()

    after = BASE.apply(model, channel.close(channel.open(opening(WORLD.shape))).total)

    assert torch.equal(after["items"], model["items"])
    assert float(after["server.rounds"]) == 1


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("width", 0),
        ("learning_rate", float("inf")),
        ("decay", 0.0),
        ("regularization", -1.0),
        ("virtual", -1),
        ("local_steps", -1),
        ("predict_after", -1),
        ("start_size", 0.0),
    ],
)
def test_an_unusable_setting_is_named(setting: str, value: float) -> None:
    given: dict[str, Any] = {setting: value}
    with pytest.raises(ValueError, match=setting):
        FedRec(**given)


def test_denoising_without_virtual_ratings_is_refused() -> None:
    with pytest.raises(ValueError, match="virtual"):
        FedRec(denoise=True, virtual=0)
