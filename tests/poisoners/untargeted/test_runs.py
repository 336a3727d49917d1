"""Every untargeted poisoner in whole runs."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from privfed.catalog import find
from privfed.channels.plain import Plain
from privfed.channels.robust.rules import Median, NormBound
from privfed.data.world import Shape, World
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import Channel, Method
from privfed.machine import Machine
from privfed.methods.bpr import BPR
from privfed.methods.fedmf import FedMF
from privfed.methods.fedncf import FedNCF
from privfed.party import Party
from privfed.poisoners.untargeted.cluster_attack import ClusterAttack
from privfed.poisoners.untargeted.made_up import Degrader
from privfed.poisoners.untargeted.spattack import SpattackLD, SpattackOD
from privfed.poisoning import Poisoner
from privfed.rounds import Outcome, Setup, run
from privfed.seeds import Seeds
from tests.worlds import checkerboard, uneven

NAMES = (
    "cluster_attack",
    "fedattack",
    "spattack_od",
    "spattack_os",
    "spattack_ld",
    "spattack_ls",
    "little_is_enough",
    "inner_product",
    "label_flip",
    "sign_flip",
    "gaussian_upload",
)
WORLD, ONE = uneven(), Machine(workers=1)
BOTH: dict[str, Method] = {
    "bpr": BPR(width=8, start_size=0.1),
    "fedncf": FedNCF(width=16, epochs=2, learning_rate=0.01),
}
by_name = pytest.mark.parametrize("name", NAMES)


def part(name: str) -> Poisoner:
    """As the catalog has it, with a profile that a tiny catalog can hold."""
    made = find("poisoner", name)(profile=10)
    assert isinstance(made, Degrader)
    return made


def attacked(
    poisoner: Poisoner,
    method: Method,
    world: World = WORLD,
    machine: Machine = ONE,
    channel: Channel = Plain(),  # noqa: B008 - frozen
    rounds: int = 3,
) -> Outcome:
    party = Party(poisoner=poisoner, share=0.45)
    protocol = Protocol(every=rounds, negatives=10)
    setup = Setup(world, method, channel, protocol=protocol, rounds=rounds)
    return run(replace(setup, party=party), machine)


def held(outcome: Outcome) -> dict[str, Tensor]:
    """All that a run leaves with the server, the devices and the poisoner."""
    state = outcome.state
    parts = {"model": state.model, "private": state.private, "plotted": state.plotted}
    return {
        f"{kind} {name}": value.nan_to_num(-7.0)
        for kind, values in parts.items()
        for name, value in values.items()
    }


@by_name
@pytest.mark.parametrize("method", BOTH.values(), ids=BOTH.keys())
def test_neither_shards_nor_workers_change_a_bit(name: str, method: Method) -> None:
    whole = held(attacked(part(name), method))
    for machine in (Machine(workers=2), Machine(workers=1, shard=1)):
        other = held(attacked(part(name), method, machine=machine))
        assert whole.keys() == other.keys()
        for key, value in whole.items():
            assert torch.equal(value, other[key]), key


@by_name
@pytest.mark.parametrize("channel", [Median(), NormBound()], ids=["median", "norm"])
def test_every_one_runs_against_a_robust_rule(name: str, channel: Channel) -> None:
    found = attacked(part(name), BOTH["bpr"], channel=channel)
    assert found.state.log[-1]["loss"] < 1


@by_name
def test_every_one_degrades_and_promotes_nothing(name: str) -> None:
    found = attacked(part(name), BOTH["bpr"])
    assert part(name).aim == "degrade"
    assert found.plot is not None
    assert len(found.plot.targets) == 0
    assert len(found.plot.mine) == 3


@by_name
def test_who_is_granted_the_uploads_is_told(name: str) -> None:
    omniscient = {"spattack_od", "spattack_os", "little_is_enough", "inner_product"}
    assert part(name).knows.uploads == (name in omniscient)
    assert ("all others upload" in part(name).means()) == (name in omniscient)


RATED = [n for n in NAMES if n != "fedattack"]


@pytest.mark.parametrize("name", RATED)
def test_methods_of_ratings_are_attacked_too(name: str) -> None:
    shape = Shape(WORLD.shape.clients, WORLD.shape.items, scale=(1.0, 5.0), step=1.0)
    label = 1.0 + torch.arange(len(WORLD.train.item)) % 5
    train = replace(WORLD.train, label=label)
    rated = replace(WORLD, task="rating", shape=shape, train=train, test=train)
    found = attacked(part(name), FedMF(width=8), rated)
    assert found.state.log[-1]["utility.rmse"] > 0


def test_what_cancels_every_upload_leaves_the_model_where_it_was() -> None:
    method = BPR(width=8, start_size=0.1, clip=1e6)
    start, _ = method.init(
        replace(WORLD.shape, clients=WORLD.shape.clients + 3), Seeds(0)("init")
    )
    found = attacked(SpattackOD(profile=10), method).state.model["items"]
    torch.testing.assert_close(found, start["items"], rtol=0, atol=1e-5)

    other = attacked(SpattackLD(profile=10), method).state.model["items"]
    assert (other - start["items"]).abs().max() > 0.01


def test_a_bound_on_rows_bounds_what_is_forged() -> None:
    """The server cuts rows; three clients in three rounds move an item by so much."""
    method = BPR(width=8, start_size=1e-6, clip=0.5, learning_rate=0.1)
    found = attacked(SpattackLD(profile=10, deviation=100.0), method)
    most = 3 * found.world.shape.clients * 0.5 * 0.1
    assert found.state.model["items"].norm(dim=1).max() <= most * 1.001


def test_clusters_are_drawn_together() -> None:
    """Without other clients' pull, items end nearer to two points than they began."""
    method = BPR(width=8, start_size=0.5, learning_rate=0.05)
    found = attacked(
        ClusterAttack(profile=10), method, checkerboard(12, 24), rounds=40
    ).state.model["items"]
    start, _ = method.init(Shape(17, 24), Seeds(0)("init"))

    assert _within(found) < 0.8 * _within(start["items"])


def _within(table: Tensor) -> float:
    """The share of the spread that two clusters leave unexplained."""
    from sklearn.cluster import KMeans

    x = table.numpy().astype("float64")
    inertia = KMeans(2, n_init=5, random_state=0).fit(x).inertia_
    return float(inertia / ((x - x.mean(0)) ** 2).sum())
