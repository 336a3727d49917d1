"""DP-FedAvg: what one user moves, what is noised, and what is promised for it."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from privfed.accounting.user import (
    Cohorts,
    Fixed,
    Poisson,
    Scheduled,
    user_epsilon,
)
from privfed.channels.plain import Plain
from privfed.defenses.user_dp import BIT, CLIP, CalibratedUserDP, UserDP
from privfed.errors import SettingsError
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import FromTotal, Plan
from privfed.machine import Machine
from privfed.messages import Total, Uploads
from privfed.methods.fcf import FCF
from privfed.methods.fedmr import FedMR
from privfed.rounds import Outcome, Setup, run
from privfed.sampling import Sampling
from tests.defenses.private_worlds import (
    SUMMED,
    clipped_sum,
    method,
    numbers,
    small,
    summed,
    turn,
    uploads,
    with_history,
)
from tests.defenses.uploads import is_scale
from tests.worlds import uneven

RANKED = small("ranking")


def ready(
    asked: UserDP, sampling: Sampling | None = None, clients: int = 24, rounds: int = 3
) -> CalibratedUserDP:
    plan = Plan(
        RANKED.shape, rounds, 2, 9.0, FCF(width=8), clients, sampling or Sampling()
    )
    return asked.prepare(plan)


def outcome(asked: UserDP, machine: Machine | None = None, **more: Any) -> Outcome:
    of = {"method": FCF(width=8), "world": RANKED, "rounds": 3, **more}
    protocol = Protocol(every=1, negatives=20)
    setup = Setup(channel=Plain(), defenses=(asked,), protocol=protocol, **of)
    return run(setup, machine or Machine(workers=1))


# What one user moves


@pytest.mark.parametrize("name", SUMMED)
def test_no_user_moves_the_sum_by_more_than_the_clip(name: str) -> None:
    """Take a user out of a round, or change its whole history, whoever it is."""
    of = method(name)
    world, clip = small(of.task), 1e-3  # so small that every upload is clipped
    defense = ready(UserDP(clip=clip))
    people = world.eligible.tolist()
    whole = numbers(clipped_sum(defense, world, uploads(of, world, people)))

    for client in (people[0], people[-1]):
        empty = with_history(world, client, None)
        others = [c for c in people if c != client]
        less = numbers(clipped_sum(defense, empty, uploads(of, empty, others)))
        moved = float((whole - less).norm())
        assert moved == pytest.approx(clip, rel=1e-3)  # no more, and no less either

        other = with_history(world, client, people[len(people) // 2])
        swap = numbers(clipped_sum(defense, other, uploads(of, other, people)))
        assert 0 < float((whole - swap).norm()) <= 2 * clip * (1 + 1e-3)


def test_one_user_may_not_decide_what_others_draw() -> None:
    """A pool of everybody's items would let it into every upload."""
    of = FedMR(width=16, id_width=16, negatives_pool="items_in_train")
    few = uneven((3, 2, 4, 5))
    empty = with_history(few, 3, None)

    def others(with_of: FedMR) -> list[Tensor]:
        both = [uploads(with_of, world, [0, 1, 2]) for world in (few, empty)]
        return [numbers(summed(one, few)) for one in both]

    assert not torch.equal(*others(of))
    defended = UserDP().method(of)
    assert isinstance(defended, FedMR)
    assert torch.equal(*others(defended))


# Noise


def total() -> Total:
    """A total with every kind of part."""
    return Total(
        tables={"items": torch.ones(60, 40), "more": torch.zeros(60, 30)},
        senders={"items": torch.arange(60), "more": torch.arange(60)},
        dense={"layer.weight": torch.ones(40, 50), "layer.bias": torch.zeros(900)},
        weight=77.0,
        clients=20,
        users={"users": torch.zeros(24, 80)},
        rest={"items": torch.tensor(19.0), "users": torch.tensor(18.5)},
    )


def parts(of: Total) -> dict[str, Tensor]:
    found = {f"table {n}": v for n, v in of.tables.items()}
    found |= {f"dense {n}": v for n, v in of.dense.items()}
    return found | {f"users {n}": v for n, v in of.users.items()}


def test_every_number_of_the_sum_has_noise_of_the_clip_times_the_multiplier() -> None:
    defense = ready(UserDP(noise_multiplier=3.0, clip=0.5))

    before, after = parts(total()), parts(defense.on_total(total(), turn(RANKED, "t")))

    drawn = [after[name] - value for name, value in before.items()]
    for name, noise in zip(before, drawn, strict=True):
        spread = float(noise.std())
        assert is_scale(spread, 1.5, noise.numel()), name
        assert not is_scale(spread * 2 / 3, 1.5, noise.numel()), name
        assert not is_scale(spread * 3 / 2, 1.5, noise.numel()), name
        assert abs(float(noise.mean())) < 5 * spread / noise.numel() ** 0.5
    assert all(noise.all() for noise in drawn)  # every row, sent or not
    for one, other in pairwise(drawn):
        least = min(one.numel(), other.numel())
        assert not torch.equal(one.flatten()[:least], other.flatten()[:least])


def test_decay_factors_are_noised_around_the_expected_cohort() -> None:
    defense = ready(UserDP(noise_multiplier=1e-9, clip=1e-3))

    after = defense.on_total(total(), turn(RANKED, "t"))

    # 20 came of 24 expected: who stays away leaves a table as it is
    assert float(after.rest["items"]) == pytest.approx(23.0)
    assert float(after.rest["users"]) == pytest.approx(22.5)
    loud = ready(UserDP(noise_multiplier=3.0, clip=0.5))
    drawn = torch.stack(
        [
            loud.on_total(total(), turn(RANKED, "t", number=r)).rest["items"] - 23.0
            for r in range(400)
        ]
    )
    assert is_scale(float(drawn.std()), 1.5, 400)


def test_who_came_is_told_by_no_number() -> None:
    found = [
        ready(UserDP(), Sampling("uniform", 7)).on_total(of, turn(RANKED, "t"))
        for of in (
            total(),
            replace(
                total(),
                clients=3,
                weight=1.0,
                rest={},
                senders={n: v + 5 for n, v in total().senders.items()},
            ),
        )
    ]

    for one in found:
        assert one.clients == 7
        assert one.weight == 7.0
        assert all(int(v.min()) == int(v.max()) == 7 for v in one.senders.values())


def test_rounds_draw_anew_and_the_step_is_pure() -> None:
    defense, given = ready(UserDP()), total()
    first = defense.on_total(given, turn(RANKED, "t"))
    again = defense.on_total(given, turn(RANKED, "t"))
    later = defense.on_total(given, turn(RANKED, "t", number=1))

    assert torch.equal(numbers(first), numbers(again))
    assert not torch.equal(numbers(first), numbers(later))
    assert torch.equal(numbers(given), numbers(total()))


@pytest.mark.parametrize("name", SUMMED)
def test_without_noise_or_clip_a_method_gets_the_sum_of_equal_clients(
    name: str,
) -> None:
    of = method(name)
    world = small(of.task)
    sent = uploads(of, world, world.eligible.tolist())
    defense = ready(
        UserDP(clip=1e6, noise_multiplier=1e-14), clients=len(world.eligible)
    )

    found = defense.on_total(clipped_sum(defense, world, sent), turn(world, "t"))

    plain = summed(replace(sent, weight=None), world)
    assert torch.allclose(numbers(found), numbers(plain), rtol=1e-4, atol=1e-5)
    assert (found.weight, found.clients) == (plain.weight, plain.clients)
    assert isinstance(of, FromTotal)
    model, _ = of.init(world.shape, turn(world, "init").stream)
    assert all(v.isfinite().all() for v in of.apply(model, found).values())


@pytest.mark.parametrize("name", SUMMED)
def test_a_method_learns_under_it(name: str) -> None:
    of = method(name)
    asked = UserDP(clip=0.01, quantile=0.5)
    found = outcome(asked, method=of, world=small(of.task), rounds=2)

    assert all(value.isfinite().all() for value in found.state.model.values())
    [promise] = found.guarantees
    assert promise.private


# The clip that follows a quantile


def sizes(of: Tensor) -> Uploads:
    """Uploads of the norms given."""
    return Uploads(torch.arange(len(of)), dense={"layer": of[:, None]})


@pytest.mark.parametrize("quantile", [0.2, 0.8])
@pytest.mark.parametrize("start", [0.05, 40.0])
def test_the_clip_comes_to_the_quantile(quantile: float, start: float) -> None:
    count = 500
    lengths = torch.linspace(0.1, 10.1, count)
    defense = ready(UserDP(clip=start, quantile=quantile), clients=count, rounds=60)
    memory = defense.start()
    world = replace(RANKED, shape=replace(RANKED.shape, clients=count))

    seen = []
    for number in range(160):
        at = turn(world, "u", memory, number)
        sent = defense.on_upload(sizes(lengths), at)
        memory = defense.learn(summed(sent, world), at)
        seen.append(float(memory[CLIP]))

    late = torch.tensor(seen[-40:])
    assert float(late.mean()) == pytest.approx(
        float(lengths.quantile(quantile)), rel=0.2
    )


def test_the_bit_says_whether_an_upload_was_within_the_clip() -> None:
    defense = ready(UserDP(clip=1.0, quantile=0.5))

    sent = defense.on_upload(
        sizes(torch.tensor([0.5, 1.0, 1.5])), turn(RANKED, "u", defense.start())
    )

    assert sent.dense[BIT][:, 0].tolist() == [0.5, 0.5, -0.5]
    assert sent.dense["layer"][:, 0].tolist() == pytest.approx(
        [0.5, 1.0, 1.0], rel=1e-5
    )


def test_the_bit_is_noised_and_leaves_with_the_total() -> None:
    defense = ready(UserDP(noise_multiplier=2.0, clip=1.0, quantile=0.5), clients=400)
    given = replace(total(), dense={BIT: torch.zeros(1)})
    start = defense.start()

    assert defense.bits == 400 / 20
    assert BIT not in defense.on_total(given, turn(RANKED, "t", start)).dense
    steps = torch.stack(
        [defense.learn(given, turn(RANKED, "t", start, r))[CLIP] for r in range(600)]
    ).log()
    noise = -steps / 0.2 * 400  # half of all bits are 1, so nothing but noise moves it
    assert is_scale(float(noise.std()), 20.0, 600)
    assert not is_scale(float(noise.std()) * 1.5, 20.0, 600)


def test_the_sum_pays_for_the_bits() -> None:
    plain = ready(UserDP(noise_multiplier=2.0), clients=100)
    adaptive = ready(UserDP(noise_multiplier=2.0, quantile=0.5), clients=100)

    assert plain.on_sum == 2.0
    assert adaptive.on_sum == pytest.approx((2.0**-2 - (2 * 5.0) ** -2) ** -0.5)
    assert plain.guarantee().epsilon == adaptive.guarantee().epsilon
    few = ready(UserDP(noise_multiplier=9.0, quantile=0.5), clients=10)
    assert few.bits == 9.0  # a count of so few bits needs more noise than a 20th


def test_noise_follows_the_clip() -> None:
    defense = ready(UserDP(noise_multiplier=3.0, quantile=0.5))
    at = {CLIP: torch.tensor(0.1, dtype=torch.float64)}

    after = defense.on_total(
        replace(total(), dense={**total().dense, BIT: torch.zeros(1)}),
        turn(RANKED, "t", at),
    )

    noise = after.tables["more"]
    assert is_scale(float(noise.std()), defense.on_sum * 0.1, noise.numel())


# Cohorts and what they are accounted by


@pytest.mark.parametrize(
    ("sampling", "cohorts", "relation", "expected"),
    [
        (Sampling(), Scheduled(3), "add_or_remove", 1000),
        (Sampling("poisson", 200), Poisson(0.2, 3), "add_or_remove", 200),
        (Sampling("poisson", 2000), Scheduled(3), "add_or_remove", 1000),
        (Sampling("uniform", 200), Fixed(200, 1000, 3), "replace_one", 200),
        (Sampling("uniform", 2000), Scheduled(3), "add_or_remove", 1000),
        (Sampling("uniform", 200, rest=True), Scheduled(2), "add_or_remove", 200),
        (Sampling("queue", 200), Scheduled(2), "add_or_remove", 200),
    ],
    ids=lambda value: str(value)[:30],
)
def test_each_way_of_drawing_cohorts_has_its_accountant(
    sampling: Sampling, cohorts: Cohorts, relation: str, expected: int
) -> None:
    found = ready(UserDP(epsilon=2.0), sampling, clients=1000)

    assert (found.cohorts, found.relation) == (cohorts, relation)
    assert found.expected == expected
    told = found.guarantee()
    assert told.epsilon is not None
    assert 1.97 < told.epsilon <= 2.0
    assert told.unit == "user"


def test_a_noise_multiplier_is_accounted_for_as_it_is() -> None:
    found = ready(UserDP(noise_multiplier=5.0), rounds=100).guarantee()

    assert found.epsilon == pytest.approx(9.997, abs=1e-3)
    assert "exact" in found.accountant


def test_replacing_needs_twice_the_noise_of_adding() -> None:
    one = ready(UserDP(epsilon=1.0)).noise_multiplier
    two = ready(UserDP(epsilon=1.0, relation="replace_one")).noise_multiplier

    assert two == pytest.approx(2 * one)


def test_a_poisson_cohort_that_may_be_empty_is_refused() -> None:
    with pytest.raises(SettingsError, match="take more --clients-per-round"):
        ready(UserDP(), Sampling("poisson", 10), clients=1000)

    fits = ready(UserDP(), Sampling("poisson", 60), clients=1000)
    chance = 3 * (1 - 0.06) ** 999
    left = fits.delta - fits.spent
    assert chance * (1 + math.exp(8.0)) <= left <= fits.delta / 100
    assert fits.guarantee().epsilon == pytest.approx(
        user_epsilon(
            fits.noise_multiplier, fits.cohorts, fits.relation, fits.delta - left
        ).value
    )


@pytest.mark.parametrize(
    ("asked", "sampling", "match"),
    [
        (UserDP(), Sampling("interactions"), "take --sampling all, poisson or uniform"),
        (
            UserDP(relation="add_or_remove"),
            Sampling("uniform", 10),
            "--sampling poisson; take that, or relation=replace_one",
        ),
    ],
)
def test_cohorts_without_a_proof_are_refused(
    asked: UserDP, sampling: Sampling, match: str
) -> None:
    with pytest.raises(SettingsError, match=match):
        ready(asked, sampling)


def test_the_promise_says_who_is_trusted_with_what() -> None:
    told = ready(UserDP(), Sampling("poisson", 200), clients=1000).guarantee()
    said = told.sentence()

    for part in (
        "one user",
        "add or remove",
        "whoever holds the sum of uploads is trusted",
        "secure aggregation or encryption",
        "everybody who sees them",
        "chance 0.2; who does must stay with the server",
        "clipped to norm 1",
    ):
        assert part in said


# Runs


def model(of: Outcome) -> dict[str, Tensor]:
    return {**of.state.model, "clip": of.state.kept["0"].get(CLIP, torch.zeros(()))}


def test_neither_shards_nor_workers_change_a_bit() -> None:
    asked = UserDP(clip=0.1, quantile=0.5)
    whole = model(outcome(asked))

    for machine in (Machine(workers=1, shard=1), Machine(workers=2, shard=5)):
        other = model(outcome(asked, machine))
        assert all(torch.equal(other[name], value) for name, value in whole.items())


def test_a_run_by_poisson_cohorts() -> None:
    found = outcome(UserDP(delta=1e-3), rounds=4, sampling=Sampling("poisson", 20))

    [promise] = found.guarantees
    assert "PLD" in promise.accountant
    assert promise.delta == 1e-3


def test_more_epsilon_is_less_noise_in_the_model() -> None:
    spread = [
        float(outcome(UserDP(epsilon=e)).state.model["items"].std()) for e in (0.1, 10)
    ]
    assert spread[0] > 10 * spread[1]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"epsilon": 0.0}, "epsilon must be positive"),
        ({"epsilon": math.inf}, "epsilon must be positive"),
        ({"noise_multiplier": -1.0}, "noise_multiplier must be positive"),
        ({"epsilon": 1.0, "noise_multiplier": 1.0}, "not both"),
        ({"clip": 0.0}, "clip must be positive"),
        ({"clip": math.nan}, "clip must be positive"),
        ({"delta": 0.0}, "delta must lie in"),
        ({"delta": 1.0}, "delta must lie in"),
        ({"quantile": 0.0}, "quantile must lie in"),
        ({"quantile": 1.0}, "quantile must lie in"),
    ],
)
def test_unusable_settings_are_refused(settings: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        UserDP(**settings)
