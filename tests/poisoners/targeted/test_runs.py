"""Whole runs with malicious clients: nothing but the seed decides their outcome."""

import pytest
import torch

from privfed.channels.plain import Plain
from privfed.data.splits import leave_one_out
from privfed.data.worlds import demo
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import Method
from privfed.machine import Machine
from privfed.methods.bpr import BPR
from privfed.methods.dl_frs import DLFRS
from privfed.party import Party
from privfed.poisoners.targeted.boosting import ExplicitBoosting
from privfed.poisoners.targeted.pipattack import PipAttack
from privfed.poisoners.targeted.synthetic import AHum, ARa
from privfed.poisoning import Poisoner
from privfed.rounds import Outcome, Setup, run
from privfed.sampling import Sampling

WORLD = leave_one_out(demo(users=24, items=60))
METHODS: list[Method] = [
    BPR(width=8),
    DLFRS(item_rate=1000.0, user_rate=3000.0, start_size=0.3),
]
POISONERS = [ARa(), AHum(hard_steps=3), ExplicitBoosting(), PipAttack(fillers=5)]


def told(of: object) -> str:
    return type(of).__name__


def outcome(
    method: Method,
    poisoner: Poisoner,
    machine: Machine,
    rounds: int = 4,
    share: float = 0.2,
) -> Outcome:
    setup = Setup(
        WORLD,
        method,
        Plain(),
        sampling=Sampling("epoch", 10),
        protocol=Protocol("full", every=2),
        rounds=rounds,
        party=Party(poisoner=poisoner, share=share, target="7"),
    )
    return run(setup, machine)


@pytest.mark.parametrize("method", METHODS, ids=told)
@pytest.mark.parametrize("poisoner", POISONERS, ids=told)
def test_neither_shards_nor_workers_change_a_bit(
    method: Method, poisoner: Poisoner
) -> None:
    whole = outcome(method, poisoner, Machine(workers=1))
    other = outcome(method, poisoner, Machine(workers=2, shard=3))

    for name, value in whole.state.model.items():
        assert torch.equal(value, other.state.model[name]), name
    for name, value in whole.state.plotted.items():
        assert torch.equal(value, other.state.plotted[name]), name
    assert whole.state.traffic.malicious_rows > 0


def test_a_few_clients_take_an_mlp_over() -> None:
    """The claim of A-ra and A-hum's paper, on a world of 24 clients and 4 of theirs."""
    method, machine = METHODS[1], Machine(workers=1)

    def reached(one: Poisoner, share: float) -> float:
        log = outcome(method, one, machine, rounds=24, share=share).state.log
        return log[-1]["hijack.er@10"]

    assert reached(ARa(), 0.0) < 0.3
    assert reached(ARa(start_size=0.3), 0.2) > 0.9
    assert reached(AHum(start_size=0.3), 0.2) > 0.9
