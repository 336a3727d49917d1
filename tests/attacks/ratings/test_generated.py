"""Ratings come out of a MetaMF upload by one division."""

from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from privfed.adversary import Prior
from privfed.attacks.ratings.generated import Division
from privfed.data.cohort import cohort_of, cohort_of_pairs
from privfed.data.world import World
from privfed.guesses import Ratings
from privfed.interfaces import Round, State
from privfed.methods.fedmf import FedMF
from privfed.methods.metamf.method import MetaMF
from privfed.methods.metamf.theta import Variant
from privfed.seeds import Seeds
from privfed.views import ServerView, UploadsView
from tests.worlds import uneven

SEEDS = Seeds(2)
SMALL = MetaMF(width=8, layer=4, low=4, collaborative=8, hidden=16)


def rated(seed: int = 0, clients: tuple[int, ...] = (4, 9, 1, 6)) -> World:
    """A small world with ratings of 1 to 5."""
    found = uneven(clients, 40)
    rng = Generator().manual_seed(seed)
    label = torch.randint(1, 6, found.train.label.shape, generator=rng).float()
    shape = replace(found.shape, scale=(1.0, 5.0), step=1.0)
    train = replace(found.train, label=label)
    return replace(found, shape=shape, train=train, task="rating")


def method(variant: Variant = "full", batch: int | None = None) -> MetaMF:
    return replace(SMALL, variant=variant, batch=batch)


def start(of: MetaMF, world: World) -> State:
    """First tensors with no dead unit, in double precision."""
    model, _ = of.init(world.shape, SEEDS("init"))
    rng = Generator().manual_seed(4)

    def shake(x: Tensor) -> Tensor:
        return x.double() + 0.3 * torch.randn(x.shape, generator=rng).double()

    return {name: shake(value) for name, value in model.items()}


def seen(of: MetaMF, world: World, rounds: int = 1) -> Ratings:
    """What the attack claims after some rounds of everybody."""
    prior = Prior(world.shape, SEEDS("attack"), of)
    attack = Division().prepare(prior)
    memory = attack.start(prior)
    model = start(of, world)
    cohort = cohort_of(world, torch.arange(world.shape.clients))
    for number in range(rounds):
        now = Round(number, SEEDS("train", number), SEEDS("once"))
        memory = attack.observe(memory, ServerView(round=number, model=model))
        up = of.train(model, {}, cohort, now).uploads
        items = {n: (r.sender, r.item) for n, r in up.rows.items()}
        size = torch.zeros(len(up.clients), dtype=torch.int64)
        memory = attack.observe(
            memory,
            UploadsView(
                round=number,
                clients=up.clients,
                bytes_up=size,
                items=items,
                uploads=up,
            ),
        )
        model = dict(of.learn(model, up, SEEDS("learn")))
    found = attack.guess(memory, prior)
    assert isinstance(found, Ratings)
    return found


def errors(found: Ratings, world: World) -> Tensor:
    """Distance of each claimed rating from the true one."""
    table = torch.full((world.shape.clients, world.shape.items), torch.nan)
    table[world.train.owner, world.train.item] = world.train.label
    true = table[found.clients[found.sender], found.item].double()
    return (found.rating - true).abs()


@pytest.mark.parametrize("variant", ["full", "si", "sm"])
def test_one_round_gives_every_rating_exactly(variant: Variant) -> None:
    world = rated()

    found = seen(method(variant), world)

    assert len(found.rating) >= 0.8 * len(world.train.item)  # dead units hide some
    assert float(errors(found, world).max()) < 1e-10


def test_batches_add_up_over_rounds() -> None:
    world = rated()

    one, many = (seen(method(batch=2), world, rounds) for rounds in (1, 12))

    assert len(one.rating) <= 2 * world.shape.clients
    assert len(many.rating) > 1.5 * len(one.rating)
    assert float(errors(many, world).max()) < 1e-8


def test_slopes_are_those_of_autograd() -> None:
    world, of = rated(), method("si")
    model = start(of, world)
    clients, sender = torch.arange(4), torch.tensor([0, 1, 1, 3])
    item = torch.tensor([3, 0, 5, 7])

    told, slope = of.slopes(model, clients, sender, item)

    table = model["server.items"].clone().requires_grad_()
    again, _ = of.slopes({**model, "server.items": table}, clients, sender, item)
    [expected] = torch.autograd.grad(again.sum(), table)
    torch.testing.assert_close(slope, expected[item])
    cohort = cohort_of_pairs(world, torch.arange(4))
    pairs = world.train.pairs(sender, torch.arange(4))
    pairs = replace(pairs, item=item)
    cohort = cohort_of(world, clients)
    torch.testing.assert_close(told, of.predict(model, {}, cohort, pairs))


def test_a_row_that_no_rating_moves_is_left_out() -> None:
    world, of = rated(), method("sm")
    dead = {**start(of, world)}
    dead["server.first"] = torch.zeros_like(dead["server.first"]) - 1.0
    prior = Prior(world.shape, SEEDS("attack"), of)
    attack = Division().prepare(prior)
    cohort = cohort_of(world, torch.arange(4))
    up = of.train(dead, {}, cohort, Round(0, SEEDS("train"), SEEDS("once"))).uploads

    sender, _, rating = attack.divide(of, dead, up, world.shape)  # type: ignore[attr-defined]

    _, slope = of.slopes(
        dead, up.clients, up.rows["items"].sender, up.rows["items"].item
    )
    assert len(rating) == len(sender) == int(slope.any(1).sum())


def test_it_says_nothing_of_methods_that_make_no_model_for_a_client() -> None:
    assert "makes each client's model" in Division().misfit(FedMF())
    assert Division().misfit(method()) == ""


def test_a_wrong_size_of_the_mean_is_seen_and_mended() -> None:
    """Without the zero rows, fewer rows are sent than ratings are in the mean."""
    world, of = rated(clients=(6, 7)), method()
    model = start(of, world)
    cohort = cohort_of(world, torch.arange(2))
    up = of.train(model, {}, cohort, Round(0, SEEDS("train"), SEEDS("once"))).uploads
    rows = up.rows["items"]
    keep = torch.arange(len(rows.item)) % 3 > 0
    fewer = replace(
        rows, sender=rows.sender[keep], item=rows.item[keep], value=rows.value[keep]
    )
    up = replace(up, rows={"items": fewer})
    prior = Prior(world.shape, SEEDS("attack"), of)
    attack = Division().prepare(prior)

    sender, item, rating = attack.divide(of, model, up, world.shape)  # type: ignore[attr-defined]

    found = Ratings(up.clients, sender, item, rating)
    assert len(rating) > 0
    assert float(errors(found, world).max()) < 1e-9
