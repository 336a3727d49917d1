"""Runs with made-up profiles: nothing but more clients, whose data are made up."""

from dataclasses import replace

import pytest
import torch

from privfed.channels.plain import Plain
from privfed.data.world import Pairs, World, ragged
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import Method
from privfed.machine import Machine
from privfed.methods.bpr import BPR
from privfed.methods.fedmf import FedMF
from privfed.party import Party
from privfed.poisoners.shilling.average import AverageAttack, RandomAttack
from privfed.poisoners.shilling.popular import Bandwagon, PopularAttack
from privfed.poisoners.shilling.profile import Shilling
from privfed.poisoners.shilling.segment import Segment
from privfed.rounds import Outcome, Setup, run
from tests.worlds import world

ITEMS = 24
EVERY = [RandomAttack(6), AverageAttack(6), PopularAttack(6), Bandwagon(6), Segment(6)]
TRAIN = [[(5 * c + 7 * k) % ITEMS for k in range(6)] for c in range(12)]


def ranked() -> World:
    return world(TRAIN, ITEMS, [[(5 * c + 1) % ITEMS] for c in range(12)])


def rated() -> World:
    """The same pairs with ratings from 1 to 5."""
    base = ranked()

    def rating(item: torch.Tensor) -> torch.Tensor:
        return (item % 5 + 1).float()

    return replace(
        base,
        shape=replace(base.shape, scale=(1.0, 5.0), step=1.0),
        train=replace(base.train, label=rating(base.train.item)),
        test=replace(base.test, label=rating(base.test.item)),
        task="rating",
    )


WORLDS: list[tuple[Method, World]] = [
    (BPR(width=4, learning_rate=0.3), ranked()),
    (FedMF(width=4, learning_rate=0.01, start=0.4, start_spread=0.1), rated()),
]


def trained(method: Method, of: World, party: Party | None = None) -> Outcome:
    few = Protocol(negatives=5, every=4)
    setup = Setup(of, method, Plain(), protocol=few, rounds=4, party=party)
    return run(setup, Machine(workers=1))


def with_clients(of: World, made: Pairs, count: int) -> World:
    """The world with the owners of made-up pairs as ordinary clients."""
    clients = of.shape.clients + count
    none = torch.zeros(0, dtype=torch.int64)
    train = ragged(
        clients,
        torch.cat([of.train.owner, made.sender + of.shape.clients]),
        torch.cat([of.train.item, made.item]),
        torch.cat([of.train.label, made.label]),
    )
    test = ragged(clients, of.test.owner, of.test.item, of.test.label)
    empty = ragged(clients, none, none, torch.zeros(0))
    shape = replace(of.shape, clients=clients)
    return replace(of, shape=shape, train=train, validation=empty, test=test)


@pytest.mark.parametrize(("method", "of"), WORLDS, ids=["rank", "rate"])
@pytest.mark.parametrize("attack", EVERY, ids=lambda a: type(a).__name__)
def test_a_profile_is_trained_on_as_if_it_were_somebodys_own(
    attack: Shilling, method: Method, of: World
) -> None:
    found = trained(method, of, Party(poisoner=attack, share=0.25, target="9"))
    assert found.plot is not None
    made = attack.data(found.plot)

    ordinary = trained(method, with_clients(of, made, 3))

    assert len(found.plot.mine) == 3
    for name, value in ordinary.state.model.items():
        torch.testing.assert_close(found.state.model[name], value)
    users = found.state.private["users"]
    torch.testing.assert_close(users, ordinary.state.private["users"])


@pytest.mark.parametrize("attack", EVERY, ids=lambda a: type(a).__name__)
def test_a_target_that_few_rated_is_predicted_higher(attack: Shilling) -> None:
    method, of = WORLDS[1]
    attacked, clean = (
        trained(method, of, Party(poisoner=attack, share=share, target="9"))
        for share in (0.5, 0.0)
    )

    before, after = (
        one.state.marks["standing"].measured()[1].mean() for one in (clean, attacked)
    )
    assert after > before
