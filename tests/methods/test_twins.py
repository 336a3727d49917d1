"""Every method's vectorized training equals its per-client twin."""

from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Generator, Tensor

from privfed.channels.plain import Plain
from privfed.data.cohort import part_of
from privfed.data.world import World
from privfed.interfaces import START, Round, State
from privfed.messages import Total
from privfed.methods.fcf import FCF
from privfed.methods.fedavg import FedAvg
from privfed.methods.fedmr import FedMR
from privfed.methods.fedncf import FedNCF
from privfed.methods.fedrap import FedRAP
from privfed.methods.fusion import Kind
from privfed.methods.local_sgd import LocalSGD
from privfed.methods.pfedrec import PFedRec
from privfed.methods.router import dropout_mask
from privfed.seeds import Seeds
from tests.methods import twin
from tests.worlds import everyone, opening, shards, uneven

WORLD = uneven()
SEEDS = Seeds(5)
ROUND = Round(3, SEEDS("train", 3), SEEDS("once"))
FULL, MINI = 4096, 24
VANILLA: list[LocalSGD] = [
    one(width=8, epochs=3, learning_rate=0.05, item_rate=0.7)
    for one in (FedAvg, FCF, FedNCF, PFedRec, FedRAP)
]
Name = Literal["fedavg", "fcf", "fedncf", "pfedrec", "fedrap"]
BACKBONES: tuple[Name, ...] = ("fedavg", "fcf", "fedncf", "pfedrec", "fedrap")
FUSIONS: tuple[Kind, ...] = ("sum", "mlp", "gate", "mix")
FUSED: list[LocalSGD] = [
    FedMR(width=8, id_width=12, epochs=2, learning_rate=0.05, backbone=b, fusion=f)
    for b in BACKBONES
    for f in FUSIONS
]
EXTRA: list[LocalSGD] = [
    FedRAP(width=8, epochs=2, schedule="const"),
    FedRAP(width=8, epochs=2, schedule="off"),
    FedAvg(width=8, epochs=2, negatives_exclude="nothing"),
    FedMR(width=33, id_width=5, epochs=2, modalities="image+text"),
    FedMR(width=8, id_width=5, epochs=2, backbone="fedrap", modalities="image"),
    FedMR(width=8, id_width=5, epochs=2, modalities="id+text", dropout=False),
    FedMR(width=8, id_width=5, epochs=2, router="item"),
]


def name(method: LocalSGD) -> str:
    if isinstance(method, FedMR):
        return f"fedmr-{method.backbone}-{method.fusion}-{method.modalities}"
    return type(method).__name__.lower()


def begin(method: LocalSGD, world: World = WORLD) -> tuple[State, State]:
    """A first state in which no two clients are alike."""
    model, private = method.init(world.shape, SEEDS("init"))
    rng = Generator().manual_seed(11)

    def shake(x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn(x.shape, generator=rng)

    return (
        {n: shake(v) for n, v in model.items()},
        {n: shake(v) for n, v in private.items()},
    )


def one_round(
    method: LocalSGD,
    model: State,
    private: State,
    world: World = WORLD,
    size: int = 100,
    round: Round = ROUND,
) -> tuple[Total, State]:
    """A round's total and the private state after it, trained in shards."""
    channel = Plain()
    opened = channel.open(opening(world.shape))
    after = {n: v.clone() for n, v in private.items()}
    for cohort in shards(world, size):
        trained = method.train(model, private, cohort, round)
        for n, value in trained.private.items():
            after[n][cohort.clients] = value
        for n, rows in trained.private_rows.items():
            after[n][cohort.clients[rows.sender], rows.item] = rows.value
        opened, _ = channel.send(opened, trained.uploads)
    return channel.close(opened).total, after


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual.double(), expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("batch", [FULL, MINI], ids=["full", "mini"])
@pytest.mark.parametrize("method", [*VANILLA, *FUSED, *EXTRA], ids=name)
def test_a_round_equals_its_per_client_twin(method: LocalSGD, batch: int) -> None:
    method = replace(method, batch=batch)
    model, private = begin(method)

    total, after = one_round(method, model, private)
    updated = method.apply(model, total)
    clients, expected = twin.train_all(method, model, private, WORLD, ROUND)

    for n, value in expected.items():
        close(updated[n], value)
        if not isinstance(method, FedMR) or method.modalities == "all":
            assert not torch.equal(updated[n], model[n]), f"{n} did not learn"
    for client, p in enumerate(clients):
        for n, value in after.items():
            own = (
                value[client] + model[n + START]
                if n + START in model
                else value[client]
            )
            close(own, p[n].detach())


@pytest.mark.parametrize("method", [*VANILLA, *FUSED, *EXTRA], ids=name)
def test_scores_equal_the_twins(method: LocalSGD) -> None:
    model, private = begin(method)

    scores = method.score(model, private, everyone(WORLD))

    assert scores.shape == (WORLD.shape.clients, WORLD.shape.items)
    for client in range(WORLD.shape.clients):
        p = twin.params_of(model, private, client)
        close(scores[client], twin.score_one(method, p, WORLD, client))


@pytest.mark.parametrize("method", [*VANILLA, *FUSED[3::4]], ids=name)
def test_the_loss_reported_is_the_mean_loss_of_the_last_step(method: LocalSGD) -> None:
    method = (
        replace(method, batch=FULL, epochs=1, dropout=False)
        if isinstance(method, FedMR)
        else replace(method, batch=FULL, epochs=1)
    )
    model, private = begin(method)

    for cohort in shards(WORLD, 1):
        client = int(cohort.clients)
        found = method.train(model, private, cohort, ROUND).loss
        if not len(cohort.item):
            assert found.tolist() == [0.0]
            continue
        p = twin.params_of(model, private, client)
        if isinstance(twin.core(method), PFedRec):
            continue  # its last step is half a step later
        [batch] = twin.drawn(method, cohort, ROUND)
        close(found[0], twin.loss(method, p, WORLD, batch, ROUND.number).detach())


@pytest.mark.parametrize("method", [*VANILLA, *FUSED[3::4]], ids=name)
def test_training_changes_nothing_that_it_was_given(method: LocalSGD) -> None:
    model, private = begin(method)
    before = {n: v.clone() for n, v in {**model, **private}.items()}

    total, _ = one_round(replace(method, batch=MINI), model, private)
    method.apply(model, total)

    for n, value in {**model, **private}.items():
        assert torch.equal(value, before[n]), n


@pytest.mark.parametrize("batch", [FULL, 128], ids=["full", "mini"])
@pytest.mark.parametrize("method", [*VANILLA, *FUSED[3::4]], ids=name)
def test_shards_do_not_change_a_bit(method: LocalSGD, batch: int) -> None:
    counts = (0, 4, 4, 7, 12, 13, 9, 16, 15, 30, 31, 29, 26, 27, 25, 32, 28, 6)
    world = uneven(counts, items=150)
    method = replace(method, batch=batch, width=16)
    model, private = begin(method, world)

    whole, kept = one_round(method, model, private, world)

    for size in (1, 3, 7):
        total, after = one_round(method, model, private, world, size)
        assert total.weight == whole.weight
        for n, value in {**whole.tables, **whole.dense}.items():
            assert torch.equal({**total.tables, **total.dense}[n], value), n
        for n, value in kept.items():
            assert torch.equal(after[n], value), n


@pytest.mark.parametrize("method", [*VANILLA, *FUSED[3::4]], ids=name)
def test_a_round_of_clients_without_data_changes_nothing(method: LocalSGD) -> None:
    world = uneven((0, 0, 3))
    model, private = begin(method, world)
    cohort = shards(world, 100)[0]
    assert cohort.clients.tolist() == [0, 1, 2]  # one bucket
    cohort = part_of(cohort, torch.tensor([0, 1]))

    trained = method.train(model, private, cohort, ROUND)
    channel = Plain()
    opened, _ = channel.send(channel.open(opening(world.shape)), trained.uploads)
    updated = method.apply(model, channel.close(opened).total)

    for n, value in model.items():
        assert torch.equal(updated[n], value), n
    for n, value in trained.private.items():
        assert torch.equal(value, private[n][:2]), n


def test_dropout_differs_by_step_and_client() -> None:
    """Two epochs of one client: a mask that repeats would keep the same units."""
    stream = SEEDS("dropout test")
    clients = torch.arange(50)
    samples = torch.arange(20).expand(50, -1)
    mask = dropout_mask(stream, clients, samples, 33)

    assert mask.shape == (50, 20, 33)
    assert 0.48 < mask.mean().item() < 0.52
    assert torch.equal(mask[:, 5:], dropout_mask(stream, clients, samples[:, 5:], 33))
    assert not torch.equal(mask[0], mask[1])
    other = dropout_mask(stream.of("x", 1), clients, samples, 33)
    assert 0.45 < (mask == other).float().mean().item() < 0.55
