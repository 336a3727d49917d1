"""Ratings come out of repeated local training."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from privfed.adversary import Prior
from privfed.attacks.ratings.inversion import Inversion
from privfed.attacks.reading.records import Sent
from privfed.attacks.reading.simulation import passed
from privfed.data.cohort import cohort_of
from privfed.data.world import World
from privfed.guesses import Ratings
from privfed.interfaces import Round, State
from privfed.methods.fedmf import FedMF
from privfed.methods.fedncf import FedNCF
from privfed.methods.fedrec import FedRec
from privfed.methods.metamf.method import MetaMF
from privfed.seeds import Seeds
from privfed.views import ModelView, UploadsView, View
from tests.attacks.ratings.test_generated import errors, rated
from tests.worlds import shards

SEEDS = Seeds(3)
WORLD = rated(clients=(6, 9, 7, 12))
UNGRIDDED = replace(WORLD, shape=replace(WORLD.shape, step=0.0))
EXACT = FedMF(
    width=4,
    learning_rate=0.01,
    steps="all",
    start=0.4,
    start_spread=0.1,
)


def views(of: FedMF | FedRec, world: World, noise: float = 0.0) -> Iterator[View]:
    """Two rounds of everybody, shard by shard, in double precision."""
    model, private = (
        {n: v.double() for n, v in state.items()}
        for state in of.init(world.shape, SEEDS("init"))
    )
    rng = Generator().manual_seed(8)
    for number in range(2):
        yield ModelView(round=number, model=model)
        after = dict(model)
        for cohort in shards(world, 2):
            now = Round(number, SEEDS("train", number), SEEDS("once"))
            trained = of.train(model, private, cohort, now)
            rows = trained.uploads.rows["items"]
            value = rows.value
            drawn = torch.randn(value.shape, generator=rng) * noise
            up = replace(
                trained.uploads, rows={"items": replace(rows, value=value + drawn)}
            )
            size = torch.zeros(len(cohort.clients), dtype=torch.int64)
            items = {"items": (rows.sender, rows.item)}
            yield UploadsView(
                round=number, clients=up.clients, bytes_up=size, items=items, uploads=up
            )
            after["items"] = after["items"].index_add(0, rows.item, value)
            private["users"][cohort.clients] = trained.private["users"]
        model = after


def claimed(
    attack: Inversion, of: FedMF | FedRec, world: World, noise: float = 0.0
) -> Ratings:
    prior = Prior(world.shape, SEEDS("attack"), of)
    memory = attack.start(prior)
    for view in views(of, world, noise):
        memory = attack.observe(memory, view)
    return attack.guess(memory, prior)


def test_two_uploads_give_every_rating() -> None:
    found = claimed(Inversion(), EXACT, WORLD)
    near = claimed(Inversion(), EXACT, UNGRIDDED)

    assert len(found.rating) == len(WORLD.train.item)
    assert float(errors(found, WORLD).max()) == 0.0
    assert float(errors(near, WORLD).max()) < 1e-3


def test_so_do_uploads_of_several_local_steps() -> None:
    several = replace(EXACT, local_steps=4, learning_rate=0.005)

    found = claimed(Inversion(), several, UNGRIDDED)

    assert float(errors(found, WORLD).max()) < 1e-3


def test_one_upload_leaves_a_length_open() -> None:
    found = claimed(Inversion(uploads=1), EXACT, UNGRIDDED)

    assert float(errors(found, WORLD).mean()) > 0.05


def test_noise_leaves_nothing_to_find() -> None:
    clear, noisy = (
        claimed(Inversion(iterations=100), EXACT, WORLD, n) for n in (0.0, 10.0)
    )

    assert float(errors(clear, WORLD).mean()) < 0.01
    assert not len(noisy.rating) or float(errors(noisy, WORLD).mean()) > 0.8


@pytest.mark.parametrize(
    "of",
    [
        EXACT,
        replace(EXACT, reads="old", local_steps=3),
        replace(EXACT, optimizer="adam", local_steps=3),
        replace(EXACT, optimizer="adam", local_steps=2, reads="old"),
        FedRec(width=4, virtual=0),
    ],
    ids=["new", "old, 3 steps", "adam", "adam, old", "fedrec"],
)
def test_a_simulated_pass_is_the_upload(of: FedMF | FedRec) -> None:
    model, private = (
        {n: v.double() for n, v in state.items()}
        for state in of.init(WORLD.shape, SEEDS("init"))
    )
    for client in range(WORLD.shape.clients):
        cohort = cohort_of(WORLD, torch.tensor([client]))
        trained = of.train(model, private, cohort, Round(0, SEEDS("t"), SEEDS("o")))
        up, order = trained.uploads, cohort.item.argsort()
        upload = Sent(
            here=torch.ones(1, dtype=torch.bool),
            round=torch.zeros(1, dtype=torch.int64),
            real=torch.ones(1, len(order), dtype=torch.bool),
            rows={"items": model["items"][cohort.item[order]][None]},
            rows_moved={},
            shared={},
            shared_moved={},
            scale={n: torch.tensor([s]) for n, s in up.scale.items()},
        )
        own: State = {"users": private["users"][client, None]}
        label: Tensor = cohort.label[order].double()[None]

        found = passed(of.pass_(0), upload, own, label)

        torch.testing.assert_close(found.rows["items"][0], up.rows["items"].value)
        torch.testing.assert_close(found.own["users"], trained.private["users"])


def test_the_victims_are_the_same_for_any_shards() -> None:
    attack = Inversion(victims=2, iterations=2, unexplained=1e9)
    prior = Prior(WORLD.shape, SEEDS("attack"), EXACT)
    seen = list(views(EXACT, WORLD))
    first = [v for v in seen if v.round == 0]
    turned = [first[0], *reversed(first[1:])]
    found = []
    for order in (first, turned):
        memory = attack.start(prior)
        for view in order:
            memory = attack.observe(memory, view)
        found.append(attack.guess(memory, prior))

    assert len(found[0].clients) == 2
    assert torch.equal(found[0].clients, found[1].clients)
    torch.testing.assert_close(found[0].rating, found[1].rating)


def test_nothing_seen_is_nothing_claimed() -> None:
    prior = Prior(WORLD.shape, SEEDS("attack"), EXACT)

    found = Inversion().guess(Inversion().start(prior), prior)

    assert not len(found.clients)


def test_it_applies_where_local_training_can_be_repeated() -> None:
    assert Inversion().misfit(EXACT) == ""
    assert Inversion().misfit(FedNCF()) == ""
    assert "cannot repeat" in Inversion().misfit(MetaMF())


def test_a_setting_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="victims"):
        Inversion(victims=0)
