"""Ditto against its per-client twin."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from privfed.channels.plain import Plain
from privfed.interfaces import Round, State
from privfed.machine import Machine
from privfed.methods.ditto import Ditto
from privfed.methods.neural.shared import dense, items, users
from privfed.rounds import run
from privfed.sampling import Sampling
from privfed.seeds import Seeds
from tests.methods import neural_twin as twin
from tests.methods.test_cali3f import SMALL, close, demo_setup, given_to
from tests.test_rounds import ONE, same
from tests.worlds import everyone, opening, shards, uneven

WORLD = uneven()
SEEDS = Seeds(5)
ROUND = Round(3, SEEDS("train", 3), SEEDS("once"))
DITTO = Ditto(**SMALL)
BEGUN = "own begun"


def begin(method: Ditto = DITTO) -> tuple[State, dict[str, Tensor]]:
    """A first state in which clients differ and the odd ones have not begun."""
    first, private = method.init(WORLD.shape, SEEDS("init"))
    model = {name: value.double() for name, value in first.items()}
    rng = Generator().manual_seed(1)
    mine = {}
    for name, value in private.items():
        mine[name] = value.double() + 0.1 * torch.randn(value.shape, generator=rng)
    mine[BEGUN] = (torch.arange(WORLD.shape.clients) % 2 == 0).float()
    return model, mine


def personal(model: State, private: State, client: int) -> State:
    """What one client predicts with."""
    shared = given_to(model, client, dense(model))
    if not private[BEGUN][client]:
        return shared
    own = {n: private[f"own.{n}"][client] for n in [*users(model), *dense(model)]}
    return {**shared, **own}


@pytest.mark.parametrize("pull", [0.0, 0.5])
def test_a_round_equals_its_per_client_twin(pull: float) -> None:
    method = replace(DITTO, pull=pull)
    model, private = begin()
    for cohort in shards(WORLD, 3):
        trained = method.train(model, private, cohort, ROUND)
        for k, client in enumerate(cohort.clients.tolist()):
            start = given_to(model, client, dense(model))
            far = {n: start[n] for n in [*users(model), *dense(model)]}
            common = twin.train_one(method, start, WORLD, client, ROUND)
            begun = personal(model, private, client)
            own = twin.train_one(method, begun, WORLD, client, ROUND, (pull, far))
            for name in dense(model):
                sent = trained.uploads.dense[name][k]
                close(sent, common[name] - start[name])
            for name in users(model):
                close(trained.uploads.users[name][k], common[name] - start[name])
            for name in far:
                close(trained.private[f"own.{name}"][k], own[name])
            for name, rows in trained.uploads.rows.items():
                whole = torch.zeros_like(model[name])
                mine = rows.sender == k
                whole[rows.item[mine]] = rows.value[mine]
                close(whole, common[name] - model[name])


def test_the_personal_run_is_not_sent_and_leaves_the_upload_alone() -> None:
    model, private = begin()
    cohort = shards(WORLD, 100)[-1]

    one, other = (
        replace(DITTO, pull=pull).train(model, private, cohort, ROUND)
        for pull in (0.0, 5.0)
    )

    assert set(one.uploads.dense) == {*dense(model)}
    assert one.uploads.weight is None
    for name, value in one.uploads.dense.items():
        assert torch.equal(value, other.uploads.dense[name])
    for name, value in one.private.items():
        assert torch.equal(value, other.private[name]) == (name == BEGUN)


def test_only_a_client_with_data_has_begun() -> None:
    model, private = DITTO.init(WORLD.shape, SEEDS("init"))
    for cohort in shards(WORLD, 100):
        found = DITTO.train(model, private, cohort, ROUND).private[BEGUN]
        assert found.tolist() == (cohort.counts > 0).float().tolist()


def test_a_strong_pull_keeps_the_personal_model_near_the_shared_one() -> None:
    model, private = DITTO.init(WORLD.shape, SEEDS("init"))
    cohort = shards(WORLD, 100)[-1]

    def moved(pull: float) -> float:
        found = replace(DITTO, pull=pull).train(model, private, cohort, ROUND).private
        return sum(
            float((found[f"own.{n}"] - v).square().sum())
            for n, v in dense(model).items()
        )

    assert moved(0.0) > moved(1.0) > moved(10.0)


def test_scores_are_those_of_the_personal_model() -> None:
    model, private = begin()

    found = DITTO.score(model, private, everyone(WORLD))

    every = torch.arange(WORLD.shape.items)
    for client in range(WORLD.shape.clients):
        p = personal(model, private, client)
        close(found[client], twin.logits({n: v.double() for n, v in p.items()}, every))


def test_the_server_adds_the_simple_mean() -> None:
    model, private = begin()
    channel = Plain()
    opened, parts = channel.open(opening(WORLD.shape)), []
    for cohort in shards(WORLD, 3):
        parts.append(DITTO.train(model, private, cohort, ROUND).uploads)
        opened, _ = channel.send(opened, parts[-1])
    after = DITTO.apply(model, channel.close(opened).total)

    for name, value in dense(model).items():
        every = torch.cat([part.dense[name] for part in parts]).double()
        close(after[name], value + every.mean(0))
    for name, table in items(model).items():
        expected = table.double()
        for part in parts:
            rows = part.rows[name]
            expected.index_add_(0, rows.item, rows.value.double() / WORLD.shape.clients)
        close(after[name], expected)


def test_neither_shards_nor_workers_change_a_result() -> None:
    asked = demo_setup(DITTO, sampling=Sampling("uniform", 10))
    whole = run(asked, ONE)

    for machine in (Machine(workers=2), Machine(workers=2, shard=1)):
        same(run(asked, machine), whole)


def test_a_personal_model_goes_on_where_it_stopped() -> None:
    asked = demo_setup(DITTO, attacks={})
    one, two = (run(replace(asked, rounds=r), ONE).state for r in (1, 2))
    still = replace(DITTO, learning_rate=1e-30)
    frozen = run(replace(asked, method=still, rounds=2), ONE).state.private

    assert not torch.equal(one.private["own.out.bias"], two.private["own.out.bias"])
    assert bool(one.private[BEGUN].all())
    spread = one.private["own.out.weight"].flatten(1).std(0).max()
    assert spread > 0
    assert frozen["own.out.weight"].flatten(1).std(0).max() < 1e-6


@pytest.mark.parametrize("pull", [-1.0, float("inf"), float("nan")])
def test_an_unusable_pull_is_named(pull: float) -> None:
    given: dict[str, Any] = {"pull": pull}
    with pytest.raises(ValueError, match="pull"):
        Ditto(**given)
