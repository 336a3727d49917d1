"""Local noise on whole uploads: its scale, what it hides, and what is promised."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from privfed.accounting.gaussian import gaussian_epsilon
from privfed.accounting.local import most_pure
from privfed.catalog import entries
from privfed.channels.plain import Plain
from privfed.choices import choose
from privfed.defenses.ldp import LDP, CalibratedLDP
from privfed.devices.clipping import clipped
from privfed.errors import SettingsError
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import Method, Plan
from privfed.machine import Machine
from privfed.messages import Uploads, every, everywhere
from privfed.methods.fcf import FCF
from privfed.rounds import Outcome, Setup, run
from privfed.sampling import Sampling
from tests.defenses.private_worlds import method, numbers, small, summed
from tests.defenses.uploads import (
    CLIENTS,
    SHAPE,
    TURN,
    alike,
    in_shards,
    is_scale,
    sent,
    tensors,
    turn,
)

SENT = replace(sent(), rest={})


def ready(
    asked: LDP,
    times: int = 4,
    sampling: Sampling | None = None,
    clients: int = 30,
    of: Method | None = None,
) -> CalibratedLDP:
    who = sampling or Sampling()
    return asked.prepare(
        Plan(SHAPE, times, times, 9.0, of or FCF(width=8), clients, who)
    )


def outcome(asked: LDP, of: Method, machine: Machine | None = None) -> Outcome:
    setup = Setup(
        small(of.task),
        of,
        Plain(),
        (asked,),
        protocol=Protocol(every=1, negatives=20),
        rounds=2,
    )
    return run(setup, machine or Machine(workers=1))


def added(defense: CalibratedLDP) -> dict[str, Tensor]:
    """The noise in every part of an upload, where nothing of it is clipped."""
    after = defense.on_upload(SENT, TURN)
    found = {
        name: after.rows[name].value - everywhere(rows, CLIENTS, 50).value
        for name, rows in SENT.rows.items()
    }
    for now, before in ((after.dense, SENT.dense), (after.users, SENT.users)):
        found |= {name: now[name] - value for name, value in before.items()}
    return found


@pytest.mark.parametrize("noise", ["gaussian", "laplace"])
def test_every_number_has_noise_of_the_scale_that_is_told(noise: Any) -> None:
    defense = ready(LDP(epsilon_round=200.0, clip=1e4, noise=noise))
    laplace = noise == "laplace"
    deviation = defense.spread * (2**0.5 if laplace else 1)

    for name, drawn in added(defense).items():
        kurtosis, spread = (6.0 if laplace else 3.0), float(drawn.std())
        assert is_scale(spread, deviation, drawn.numel(), kurtosis), name
        if drawn.numel() > 1000:
            assert not is_scale(spread * 1.5, deviation, drawn.numel(), kurtosis), name
            assert not is_scale(spread / 1.5, deviation, drawn.numel(), kurtosis), name
        assert drawn.all(), name  # rows that were not sent too


def test_laplace_noise_is_laplace_noise() -> None:
    """By its mean size, which is its scale, and by how often it exceeds three."""
    drawn = torch.cat(
        [
            v.flatten()
            for v in added(
                ready(LDP(epsilon_round=2e4, clip=1e4, noise="laplace"))
            ).values()
        ]
    ).double()

    count = drawn.numel()
    assert float(drawn.abs().mean()) == pytest.approx(1.0, abs=5 / count**0.5)
    beyond, expected = float((drawn.abs() > 3).double().mean()), math.exp(-3)
    assert beyond == pytest.approx(expected, abs=5 * (expected / count) ** 0.5)


def test_the_noise_is_calibrated_to_any_two_uploads() -> None:
    """Two clips apart, in the norm that the noise is made for."""
    gauss = ready(LDP(epsilon=3.0, clip=0.5), times=4)
    pure = ready(LDP(epsilon=3.0, clip=0.5, noise="laplace"), times=4)

    # four releases, each of two vectors that are at most 1 apart
    spent = gaussian_epsilon(2.0 * 1.0, gauss.spread, 1e-5)
    assert spent == pytest.approx(3.0, rel=1e-4)
    assert pure.spread == pytest.approx(1.0 / most_pure(3.0, 4, 1e-5))
    assert pure.guarantee().epsilon is not None
    assert pure.guarantee().epsilon == pytest.approx(3.0, rel=1e-3)


@pytest.mark.parametrize(("noise", "norm"), [("gaussian", "l2"), ("laplace", "l1")])
def test_the_upload_is_clipped_in_the_norm_of_its_noise(noise: Any, norm: Any) -> None:
    quiet = ready(LDP(epsilon_round=9e4, clip=0.3, noise=noise))
    after = quiet.on_upload(SENT, TURN)
    bounded = clipped(SENT, 0.3, norm)

    for name, rows in bounded.rows.items():
        expected = everywhere(rows, CLIENTS, 50).value
        assert torch.allclose(after.rows[name].value, expected, atol=0.02)
    for name, value in bounded.dense.items():
        assert torch.allclose(after.dense[name], value, atol=0.02)


def test_every_client_sends_the_same_rows_and_the_same_weight() -> None:
    after = ready(LDP()).on_upload(SENT, TURN)

    whole = every(torch.zeros(CLIENTS, 50, 1))
    for rows in after.rows.values():
        assert torch.equal(rows.sender, whole.sender)
        assert torch.equal(rows.item, whole.item)
    assert after.weight is not None
    assert after.weight.tolist() == [1.0] * CLIENTS
    assert len(set(after.bytes_up(SHAPE).tolist())) == 1
    none = ready(LDP()).on_upload(replace(SENT, weight=None), TURN)
    assert none.weight is None


def test_a_size_that_packing_gave_is_no_longer_told() -> None:
    packed = replace(SENT, packed={"items": torch.arange(CLIENTS)})

    assert not ready(LDP()).on_upload(packed, TURN).packed


def test_decay_factors_are_noised_around_what_they_were() -> None:
    count = 3000
    shrunk = Uploads(torch.arange(count), rest={"items": torch.full((count,), 0.9)})
    defense = ready(LDP(epsilon_round=20.0, clip=0.05))

    after = defense.on_upload(shrunk, TURN).rest["items"]

    assert float(after.mean()) == pytest.approx(
        0.95, abs=5 * defense.spread / 3000**0.5
    )
    assert is_scale(float(after.std()), defense.spread, count)


@pytest.mark.parametrize("noise", ["gaussian", "laplace"])
def test_neither_shards_nor_a_second_time_change_a_bit(noise: Any) -> None:
    defense = ready(LDP(noise=noise))
    whole = defense.on_upload(SENT, TURN)
    before = {n: v.clone() for n, v in tensors(SENT).items()}

    alike(whole, defense.on_upload(SENT, TURN))
    for size in (1, 3):
        alike(whole, in_shards(defense, SENT, size))
    assert all(torch.equal(v, before[n]) for n, v in tensors(SENT).items())
    later = defense.on_upload(SENT, turn(4))
    assert not torch.equal(later.dense["layer.bias"], whole.dense["layer.bias"])


@pytest.mark.parametrize("name", entries("method"))
def test_every_method_learns_under_it(name: str) -> None:
    of = method(name)
    if "cali3f" in name or "fedfast" in name:
        of = choose("method", f"{name}:clusters=4,delegates=3").part
    found = outcome(LDP(epsilon=1e4, clip=1e-3), of)

    assert all(value.isfinite().all() for value in found.state.model.values())
    [promise] = found.guarantees
    assert promise.private


def test_the_sum_of_all_is_as_noised_as_each() -> None:
    defense = ready(LDP(epsilon_round=10.0, clip=1e-6))
    world = small("ranking")
    still = Uploads(torch.arange(24), dense={"layer": torch.zeros(24, 4000)})

    total = numbers(summed(defense.on_upload(still, TURN), world))

    assert is_scale(float(total.std()), defense.spread * 24**0.5, 4000)


# Promises


def test_both_epsilons_are_told() -> None:
    told = ready(LDP(epsilon=8.0), times=30).guarantee()
    one = (
        LDP(epsilon=8.0)
        .prepare(Plan(SHAPE, 30, 30, 9.0, FCF(), 30, Sampling()))
        .release.one(1e-5)
    )

    assert told.epsilon == pytest.approx(8.0, rel=1e-4)
    assert f"one round alone spends epsilon {one:.3g}" in told.sentence()
    assert "nobody is trusted" in told.trust
    assert "replace one user's whole history" in told.relation


def test_an_epsilon_of_one_round_adds_up_over_the_rounds() -> None:
    gauss = ready(LDP(epsilon_round=1.0), times=9).guarantee()
    pure = ready(LDP(epsilon_round=0.5, noise="laplace"), times=4).guarantee()

    assert gauss.epsilon is not None
    assert 3.0 < gauss.epsilon < 9.0
    assert pure.epsilon is not None
    assert 1.0 < pure.epsilon <= 2.0


def test_only_the_rounds_that_a_client_takes_part_in_count() -> None:
    few = ready(LDP(), times=2).spread
    assert few < ready(LDP(), times=20).spread


# Shuffling


def test_a_shuffler_saves_noise_and_is_named() -> None:
    mixed = ready(LDP(shuffle=True, noise="laplace"), 30, clients=2000)
    alone = ready(LDP(noise="laplace"), 30, clients=2000)

    assert mixed.spread < 0.6 * alone.spread
    told = mixed.guarantee()
    assert told.epsilon is not None
    assert 7.9 < told.epsilon <= 8.0
    assert "a trusted shuffler that takes the sender off all 2000 uploads" in told.trust
    assert "assumed and not simulated" in told.trust
    assert "Feldman" in told.accountant


@pytest.mark.parametrize(
    ("sampling", "clients", "cohort"),
    [
        (Sampling(), 5000, 5000),
        (Sampling("uniform", 2000), 5000, 2000),
        (Sampling("queue", 2000), 1000, 1000),
    ],
)
def test_a_cohort_is_as_large_as_its_round(
    sampling: Sampling, clients: int, cohort: int
) -> None:
    asked = LDP(epsilon=2.0, shuffle=True, noise="laplace")
    found = ready(asked, sampling=sampling, clients=clients)

    assert getattr(found.release, "cohort", None) == cohort


@pytest.mark.parametrize(
    ("asked", "more", "match"),
    [
        (LDP(epsilon=8.0, shuffle=True, noise="laplace"), {}, "not proven to help"),
        (
            LDP(epsilon_round=4.0, shuffle=True, noise="laplace"),
            {"clients": 2000},
            "not proven to help",
        ),
        (
            LDP(shuffle=True, noise="laplace"),
            {"sampling": Sampling("poisson", 20)},
            "no fixed size",
        ),
        (
            LDP(shuffle=True, noise="laplace"),
            {"of": method("fedfast")},
            "must know who sent what",
        ),
    ],
)
def test_shuffling_in_vain_is_refused(asked: LDP, more: Any, match: str) -> None:
    with pytest.raises(SettingsError, match=match):
        ready(asked, **more)


def test_a_row_of_ones_own_cannot_be_shuffled() -> None:
    defense = ready(LDP(shuffle=True, noise="laplace"), clients=50_000)

    with pytest.raises(SettingsError, match="names its sender; leave shuffle out"):
        defense.on_upload(SENT, TURN)
    assert defense.on_upload(replace(SENT, users={}), TURN).dense


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"epsilon": 0.0}, "epsilon must be positive"),
        ({"epsilon_round": math.inf}, "epsilon_round must be positive"),
        ({"epsilon": 1.0, "epsilon_round": 1.0}, "not both"),
        ({"clip": -1.0}, "clip must be positive"),
        ({"delta": 1.0}, "delta must lie in"),
        ({"shuffle": True}, "add noise=laplace"),
    ],
)
def test_unusable_settings_are_refused(settings: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        LDP(**settings)
