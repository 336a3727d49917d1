"""An adversary that repeats local training gets what the device uploads."""

from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from privfed.data.cohort import Cohort
from privfed.devices.batches import Batch, Samples, collect
from privfed.devices.recipe import Recipe
from privfed.interfaces import START, Round, State
from privfed.methods.backbone import Backbone
from privfed.methods.fcf import FCF
from privfed.methods.fedavg import FedAvg
from privfed.methods.fedncf import FedNCF
from privfed.methods.fedrap import FedRAP
from privfed.methods.pfedrec import PFedRec
from privfed.replay import Moments, Replayed, random_own, replay
from privfed.seeds import Seeds
from tests.methods.test_twins import begin
from tests.worlds import everyone, shards, uneven

SEEDS = Seeds(5)
ROUND = Round(3, SEEDS("train", 3), SEEDS("once"))
WORLD = uneven()
METHODS: list[Backbone] = [
    one(width=8, epochs=3, batch=4096, learning_rate=0.05, item_rate=0.7)
    for one in (FedAvg, FCF, FedNCF, PFedRec, FedRAP)
]


def drawn(method: Backbone, cohort: Cohort) -> tuple[Samples, Batch]:
    """The samples that a device really draws."""
    samples = collect(cohort, method.sampling(), ROUND.stream.of("negatives"))
    return samples, samples.full()


def own_of(
    recipe: Recipe, model: State, private: State, samples: Samples
) -> dict[str, Tensor]:
    clients = samples.cohort.clients
    own = {name: private[name][clients].double() for name in recipe.own}
    for name in own:
        if name + START in model:
            rows = private[name][clients[:, None], samples.item]
            own[name] = (rows + model[name + START][samples.item]).double()
    return own


def repeated(
    method: Backbone, cohort: Cohort, model: State, private: State
) -> Replayed:
    recipe = method.recipe(cohort.shape, ROUND.number)
    samples, batch = drawn(method, cohort)
    own = own_of(recipe, model, private, samples)
    label, often = batch.target.double(), batch.weight.double()
    return replay(recipe, model, own, samples.item, label, often)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_a_replay_gives_the_upload(method: Backbone) -> None:
    model, private = begin(method)
    for cohort in shards(WORLD, 3):
        trained = method.train(model, private, cohort, ROUND)
        up = trained.uploads

        found = repeated(method, cohort, model, private)

        at = drawn(method, cohort)[0].rows.nonzero(as_tuple=True)
        assert found.rows.keys() == up.rows.keys()
        assert found.shared.keys() == up.dense.keys()
        for name, rows in up.rows.items():
            torch.testing.assert_close(
                found.rows[name][at].float(), rows.value, atol=1e-5, rtol=1e-4
            )
        for name, value in up.dense.items():
            torch.testing.assert_close(
                found.shared[name].float(), value, atol=1e-5, rtol=1e-4
            )
        for name, value in trained.private.items():
            torch.testing.assert_close(
                found.own[name].float(), value, atol=1e-5, rtol=1e-4
            )


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_a_replay_can_be_differentiated_by_labels_and_private_tensors(
    method: Backbone,
) -> None:
    cohort = everyone(uneven((3, 5), 20))
    recipe = replace(method.recipe(cohort.shape, 3), steps=2)
    model = {
        n: v.double() for n, v in method.init(cohort.shape, SEEDS("init"))[0].items()
    }
    own = random_own(recipe, 2, 6, Generator().manual_seed(0), 0.5)
    item = torch.arange(12).view(2, 6)
    real = torch.tensor([[True] * 6, [True] * 5 + [False]])
    label = torch.rand(2, 6, generator=Generator().manual_seed(1), dtype=torch.float64)
    first = next(iter(own))

    def loss(label: Tensor, vector: Tensor) -> Tensor:
        found = replay(recipe, model, {**own, first: vector}, item, label, real)
        moved = [*found.rows.values(), *found.shared.values(), *found.own.values()]
        return torch.stack([value.square().sum() for value in moved]).sum()

    label.requires_grad_()
    vector = own[first].clone().requires_grad_()

    assert torch.autograd.gradcheck(loss, (label, vector), atol=1e-6)


def test_clients_do_not_change_each_others_replay() -> None:
    method = METHODS[2]
    model, private = begin(method)
    [both] = [c for c in shards(uneven((5, 5), 30), 2) if len(c.clients) == 2]
    alone = shards(uneven((5, 5), 30), 1)

    found = repeated(method, both, model, private)

    for k, cohort in enumerate(alone):
        one = repeated(method, cohort, model, private)
        torch.testing.assert_close(found.rows["items_mf"][k], one.rows["items_mf"][0])


def test_moments_are_those_of_adam() -> None:
    rng = Generator().manual_seed(3)
    value = torch.randn(5, generator=rng, dtype=torch.float64).requires_grad_()
    mine = value.detach().clone()
    real = torch.optim.Adam([value], lr=0.01)
    moments = Moments()
    for _ in range(6):
        slope = torch.randn(5, generator=rng, dtype=torch.float64)
        value.grad = slope.clone()
        real.step()
        mine = mine - 0.01 * moments.moves({"x": slope})["x"]

    torch.testing.assert_close(mine, value.detach())


def test_a_slope_of_zero_has_a_finite_derivative() -> None:
    slope = torch.zeros(3, dtype=torch.float64, requires_grad=True)

    move = Moments().moves({"x": slope})["x"]

    assert torch.autograd.grad(move.sum(), slope)[0].isfinite().all()


def test_batches_are_as_many_more_steps() -> None:
    method = METHODS[1]
    cohort = everyone(uneven((3, 8), 20))
    recipe = replace(method.recipe(cohort.shape, 3), batch=4, steps=1)
    model, private = begin(method, uneven((3, 8), 20))
    own = {name: private[name][:2].double() for name in recipe.own}
    item = torch.arange(16).view(2, 8)
    real = torch.tensor([[True] * 3 + [False] * 5, [True] * 8])
    label = torch.ones(2, 8, dtype=torch.float64)

    found = replay(recipe, model, own, item, label, real)

    for client, steps in enumerate((1, 2)):
        one = replace(recipe, batch=None, steps=steps)
        mine = {name: value[client, None] for name, value in own.items()}
        at = item[client, None], label[client, None], real[client, None]
        alone = replay(one, model, mine, *at)
        torch.testing.assert_close(found.rows["items"][client], alone.rows["items"][0])
