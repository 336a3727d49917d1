"""Robust rules in whole runs, with methods of every kind."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from privfed.channels.plain import Plain
from privfed.channels.robust.channel import Robust
from privfed.channels.robust.rules import (
    Bulyan,
    Krum,
    Median,
    MultiKrum,
    NormBound,
    TrimmedMean,
)
from privfed.choices import choose
from privfed.data.splits import leave_one_out
from privfed.data.worlds import demo
from privfed.defenses.gaussian import Gaussian
from privfed.errors import SettingsError
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import Channel
from privfed.machine import Machine
from privfed.methods.metamf.method import MetaMF
from privfed.rounds import Outcome, Setup, run

WORLD = leave_one_out(demo(users=24, items=60))
RULES = (
    Median(),
    Median(per="upload"),
    TrimmedMean(malicious=0.2),
    Krum(per="upload"),
    Krum(),
    MultiKrum(malicious=0.2),
    Bulyan(malicious=0.1),
    Bulyan(malicious=0.1, per="upload"),
    NormBound(per="upload"),
)


def outcome(
    channel: Channel, name: str = "bpr", machine: Machine | None = None
) -> Outcome:
    setup = Setup(
        WORLD,
        choose("method", name).part,
        channel,
        protocol=Protocol(every=2, negatives=20),
        rounds=2,
    )
    return run(setup, machine or Machine(workers=1))


def left(of: Outcome) -> dict[str, Tensor]:
    found = {f"model {n}": v for n, v in of.state.model.items()}
    found |= {f"private {n}": v for n, v in of.state.private.items()}
    return found | {"test": of.state.marks["test"].value}


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_neither_shards_nor_workers_change_a_bit(rule: Robust) -> None:
    whole = left(outcome(rule))

    for machine in (Machine(workers=1, shard=1), Machine(workers=2, shard=5)):
        other = left(outcome(rule, machine=machine))
        for key, value in whole.items():
            assert torch.equal(other[key], value), key


@pytest.mark.parametrize("name", ["bpr", "fedncf", "pfedrec", "fedavg_neumf"])
def test_a_bound_that_binds_nobody_is_the_plain_channel(name: str) -> None:
    """Where clients weigh alike; a method that weighs them is not told its weights."""
    plain = outcome(Plain(), name)
    bound = left(outcome(NormBound(bound=1e9), name))
    weighed = name == "fedavg_neumf"

    alike = [
        torch.allclose(bound[key], value, atol=1e-4)
        for key, value in left(plain).items()
        if key != "test"
    ]
    assert all(alike) != weighed


@pytest.mark.parametrize("name", ["fedncf", "federeco", "fedavg_neumf", "fedmr"])
@pytest.mark.parametrize("per", ["item", "upload"])
def test_methods_with_networks_and_users_learn_from_a_robust_total(
    name: str, per: str
) -> None:
    name = {"federeco": "fedncf_federeco", "fedmr": "fedmr:width=16,id_width=16"}.get(
        name, name
    )
    rule = TrimmedMean(malicious=0.1, per=per)  # type: ignore[arg-type]
    done = outcome(rule, name)

    for key, value in left(done).items():
        if value.is_floating_point() and key != "test":
            assert value.isfinite().all(), key
    assert done.state.costs.server_seconds > 0
    assert done.state.costs.bytes_up > 0
    assert done.carried is not None
    assert not done.carried.private


def test_defenses_on_the_devices_go_with_a_rule() -> None:
    setup = Setup(
        WORLD,
        choose("method", "bpr").part,
        Median(),
        (Gaussian(variance=1e-6),),
        protocol=Protocol(every=1, negatives=20),
        rounds=1,
    )

    assert run(setup, Machine(workers=1)).state.costs.rounds == 1


def test_a_method_whose_server_makes_no_total_is_refused() -> None:
    setup = Setup(replace(WORLD, task="rating"), MetaMF(), Median(), rounds=1)

    with pytest.raises(SettingsError, match="median"):
        run(setup, Machine(workers=1))


def test_a_round_too_small_for_a_rule_is_refused() -> None:
    with pytest.raises(SettingsError, match="needs 4 f \\+ 3 clients a round"):
        outcome(Bulyan(malicious=6, per="upload"))
