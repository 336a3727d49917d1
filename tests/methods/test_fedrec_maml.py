"""FedRec by MAML: each client's gradient through its adaptation, and its rows."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from privfed.channels.plain import Plain
from privfed.data.cohort import Cohort, cohort_of
from privfed.data.splits import by_ratio
from privfed.data.world import Shape, World
from privfed.data.worlds import demo
from privfed.defenses.gaussian import Gaussian
from privfed.devices.batches import bucket
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import Round, State
from privfed.machine import Machine
from privfed.methods.fedrec_maml import FedRecMAML
from privfed.rounds import Setup, run
from privfed.seeds import Seeds

SEEDS = Seeds(5)
FIRST = Round(0, SEEDS("train"), SEEDS("once"))
WORLD = by_ratio(demo(users=30, items=60), 0, task="rating")
METHOD = FedRecMAML(width=8, hidden=4, inner_rate=0.1, inner_steps=2, adapt_steps=2)


def shards(world: World) -> list[Cohort]:
    sizes = bucket(world.train.counts[world.eligible])
    return [cohort_of(world, world.eligible[sizes == s]) for s in torch.unique(sizes)]


def predicted(weights: State, item: Tensor) -> Tensor:
    user = weights["user"].expand(len(item), -1)
    both = torch.cat([user, weights["items"][item]], dim=1)
    hidden = torch.relu(both @ weights["hidden.weight"].T + weights["hidden.bias"])
    return (hidden @ weights["out.weight"].T + weights["out.bias"])[:, 0]


def loss(weights: State, item: Tensor, label: Tensor) -> Tensor:
    return (predicted(weights, item) - label).square().mean()


def stepped(weights: State, item: Tensor, label: Tensor) -> dict[str, Tensor]:
    down = torch.func.grad(loss)(weights, item, label)
    return {n: v - METHOD.inner_rate * down[n] for n, v in weights.items()}


def alone(model: State, cohort: Cohort, client: int) -> dict[str, Tensor]:
    """One client's gradient, with whole tables."""
    mine = cohort.sender == client
    item, label = cohort.item[mine], cohort.label[mine]
    keys = FIRST.stream.bits(cohort.clients[client], torch.arange(len(item)))
    order = keys.argsort()
    cut = int(METHOD.support * len(item) + 0.5)
    known, asked = order[:cut], order[cut:]

    def after(weights: dict[str, Tensor]) -> Tensor:
        for _ in range(METHOD.inner_steps):
            weights = stepped(weights, item[known], label[known])
        return loss(weights, item[asked], label[asked])

    found: dict[str, Tensor] = torch.func.grad(after)(dict(model))
    return found


def test_an_upload_is_what_each_client_would_send_alone() -> None:
    model, _ = METHOD.init(WORLD.shape, SEEDS("init"))

    for cohort in shards(WORLD):
        sent = METHOD.train(model, {}, cohort, FIRST).uploads
        for client in range(len(cohort.clients)):
            expected = alone(model, cohort, client)
            rows = sent.rows["items"]
            mine = rows.sender == client
            whole = torch.zeros_like(model["items"])
            whole[rows.item[mine]] = rows.value[mine]
            assert torch.allclose(-whole, expected.pop("items"), atol=1e-5)
            rated = cohort.item[cohort.sender == client].sort().values
            assert torch.equal(rows.item[mine], rated)
            for name, value in expected.items():
                assert torch.allclose(-sent.dense[name][client], value, atol=1e-5)


def test_a_prediction_adapts_to_all_ratings_and_reads_no_label() -> None:
    model, _ = METHOD.init(WORLD.shape, SEEDS("init"))
    everyone = WORLD.eligible
    cohort, pairs = cohort_of(WORLD, everyone), WORLD.test.of(everyone)
    found = METHOD.predict(model, {}, cohort, pairs)

    hidden = replace(pairs, label=torch.zeros_like(pairs.label))
    assert torch.equal(found, METHOD.predict(model, {}, cohort, hidden))
    for client in range(len(everyone)):
        mine, asked = cohort.sender == client, pairs.sender == client
        weights = dict(model)
        for _ in range(METHOD.adapt_steps):
            weights = stepped(weights, cohort.item[mine], cohort.label[mine])
        expected = predicted(weights, pairs.item[asked])
        assert torch.allclose(found[asked], expected, atol=1e-5)


def test_neither_shards_nor_memory_nor_workers_change_a_result() -> None:
    setup = Setup(
        WORLD,
        METHOD,
        Plain(),
        defenses=(Gaussian(variance=1e-4),),
        protocol=Protocol(every=2),
        rounds=3,
    )
    whole = run(setup, Machine(workers=1)).state

    for machine in (
        Machine(workers=2),
        Machine(workers=1, shard=1),
        Machine(workers=2, shard=3, memory=64 * 2**20),
    ):
        other = run(setup, machine).state
        for name, value in whole.model.items():
            assert torch.equal(value, other.model[name]), name
        assert torch.equal(whole.marks["test"].value, other.marks["test"].value)


def test_it_learns_to_rate_the_demo() -> None:
    world = by_ratio(demo(users=150, items=100), 0, task="rating")
    method = FedRecMAML(outer_rate=0.02)
    setup = Setup(world, method, Plain(), protocol=Protocol(every=5), rounds=30)
    outcome = run(setup, Machine(workers=1))
    task = outcome.task
    floor = task.scores(task.references()["user mean"])["mse"].mean()

    assert task.scores(outcome.state.best_test)["mse"].mean() < floor


def test_the_network_is_that_of_metamfs_comparison() -> None:
    model, private = FedRecMAML().init(Shape(9, 100), SEEDS("init"))

    sizes = {name: tuple(value.shape) for name, value in model.items()}
    assert sizes == {
        "items": (100, 64),
        "user": (64,),
        "hidden.weight": (16, 128),
        "hidden.bias": (16,),
        "out.weight": (1, 16),
        "out.bias": (1,),
    }
    assert not private


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 6}, "width must be a multiple of 4"),
        ({"hidden": 0}, "hidden must be at least 1"),
        ({"adapt_steps": -1}, "adapt_steps must be at least 0"),
        ({"support": 1.0}, "support must be between 0 and 1"),
        ({"inner_rate": float("nan")}, "inner_rate must be positive"),
    ],
)
def test_impossible_settings_are_refused(
    settings: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        FedRecMAML(**settings)  # type: ignore[arg-type]
