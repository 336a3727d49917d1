"""What every method of the catalog promises, whatever it computes."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from privfed.catalog import entries
from privfed.channels.plain import Plain
from privfed.choices import choose
from privfed.data.splits import by_clients, by_ratio, leave_one_out
from privfed.data.usage import Population, usage
from privfed.data.world import Task, World
from privfed.data.worlds import demo
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import SERVER, Method
from privfed.machine import Machine
from privfed.rounds import Outcome, Setup, run

SMALL = {  # what the catalog's sizes would make slow or too many for a small world
    "fedmr": "width=16,id_width=16,epochs=2",
    "fedmr_paper": "width=16,id_width=16,epochs=2",
    "fedmr_release": "width=16,id_width=16,epochs=2",
    "cali3f": "clusters=4,delegates=3",
    "fedfast": "clusters=4,delegates=3",
    "fedmeta": "adapt_steps=3",
}


@cache
def world(task: Task) -> World:
    """A small world for a task."""
    if task == "choice":
        return by_clients(usage(0, Population(24, fewest=20, most=60)), 0)
    data = demo(users=24, items=60)
    if task == "rating":
        return by_ratio(data, 0, task="rating")
    return leave_one_out(data)


def method(name: str) -> Method:
    spec = f"{name}:{SMALL[name]}" if name in SMALL else name
    part: Method = choose("method", spec).part
    return part


def outcome(of: Method, machine: Machine) -> Outcome:
    protocol = Protocol(every=1, negatives=20)
    return run(Setup(world(of.task), of, Plain(), protocol=protocol, rounds=2), machine)


def state(of: Outcome) -> dict[str, Tensor]:
    """All that two rounds left."""
    found = {f"model {n}": v for n, v in of.state.model.items()}
    found |= {f"private {n}": v for n, v in of.state.private.items()}
    return found | {"test": of.state.marks["test"].value}


@pytest.mark.parametrize("name", entries("method"))
def test_neither_shards_nor_workers_change_a_bit(name: str) -> None:
    of = method(name)
    whole = outcome(of, Machine(workers=1))

    for machine in (Machine(workers=1, shard=1), Machine(workers=2, shard=3)):
        other = outcome(of, machine)
        assert [row["loss"] for row in other.state.log] == [
            row["loss"] for row in whole.state.log
        ]
        for key, value in state(whole).items():
            assert torch.equal(state(other)[key], value), key


@pytest.mark.parametrize("name", entries("method"))
def test_a_round_changes_nothing_but_what_the_server_keeps(name: str) -> None:
    """What was broadcast may still be looked at by attacks after the round."""
    of = method(name)
    seen: list[dict[str, Tensor]] = []

    class Watched(type(of)):  # type: ignore[misc]
        def train(self, model, private, cohort, round):  # type: ignore[no-untyped-def]
            if not seen:
                shown = {n: v for n, v in model.items() if not n.startswith(SERVER)}
                seen.extend([shown, {n: v.clone() for n, v in shown.items()}])
            return super().train(model, private, cohort, round)

    fields = {f: getattr(of, f) for f in of.__dataclass_fields__}
    outcome(Watched(**fields), Machine(workers=1))

    shown, before = seen
    for key, value in before.items():
        assert torch.equal(shown[key], value), key


@pytest.mark.parametrize("name", entries("method"))
def test_bytes_and_words_are_told(name: str) -> None:
    of = method(name)
    costs = outcome(replace(of), Machine(workers=1)).state.costs

    assert costs.bytes_up > 0
    assert costs.bytes_down > 0
    assert costs.rounds == 2
    assert all((of.keeps, of.sends, of.needs, of.paper, of.task))
