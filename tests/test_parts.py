"""What every defense and every channel of the catalog promises, whatever it does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from privfed.built_in import Kind
from privfed.catalog import entries
from privfed.choices import choose
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import Channel, Defense, FromTotal, Method
from privfed.machine import Machine
from privfed.rounds import Keeping, Outcome, Setup, run
from privfed.sampling import Sampling
from privfed.views import TotalView, UploadsView, View
from tests.methods.test_contract import method, state, world

PARTNER = {"pseudo_items": "fedmf", "denoiser": "fedrec_pp", "regula": "bpr"}
SPEC = {"he": "he:workers=1"}
PROTOCOL = Protocol(every=1, negatives=20)
HIDING = ("he", "secagg")
SUMMED = [n for n in entries("method") if isinstance(method(n), FromTotal)]


def part(kind: Kind, name: str) -> Any:
    return choose(kind, SPEC.get(name, name)).part


def outcome(
    of: Method,
    defenses: tuple[Defense, ...] = (),
    channel: Channel | None = None,
    machine: Machine = Machine(workers=1),  # noqa: B008 - frozen
    rounds: int = 2,
) -> Outcome:
    carrier = channel or part("channel", "plain")
    setup = Setup(
        world(of.task), of, carrier, defenses, protocol=PROTOCOL, rounds=rounds
    )
    return run(setup, machine)


def same(one: Outcome, other: Outcome) -> None:
    for key, value in state(one).items():
        assert torch.equal(state(other)[key], value), key


@pytest.mark.parametrize("name", entries("defense"))
def test_shards_and_workers_change_no_bit_of_a_defense(name: str) -> None:
    of, chain = method(PARTNER.get(name, "fcf")), (part("defense", name),)
    whole = outcome(of, chain)

    for machine in (Machine(workers=1, shard=1), Machine(workers=2, shard=3)):
        same(whole, outcome(of, chain, machine=machine))


@pytest.mark.parametrize("name", entries("channel"))
def test_shards_and_workers_change_no_bit_of_a_channel(name: str) -> None:
    of, channel = method(PARTNER.get(name, "fcf")), part("channel", name)
    whole = outcome(of, channel=channel)

    same(whole, outcome(of, channel=channel, machine=Machine(workers=2, shard=3)))


@pytest.mark.parametrize("name", entries("defense"))
def test_a_promise_is_whole_or_is_none(name: str) -> None:
    of = method(PARTNER.get(name, "fcf"))
    (promise,) = outcome(of, (part("defense", name),)).guarantees

    if promise.private:
        assert promise.epsilon is not None
        assert promise.epsilon > 0
        assert promise.delta is not None
        assert promise.unit in ("interaction", "user")
        for word in (promise.relation, promise.accountant):
            assert word not in ("", "none")
    else:
        assert promise.epsilon is None
        assert promise.unit == "none"
    assert promise.trust
    assert promise.covers


@pytest.mark.parametrize("name", entries("channel"))
def test_a_channel_that_hides_uploads_shows_none(name: str) -> None:
    channel = part("channel", name)
    shown = tuple(channel.shows)

    assert not (name in HIDING and any(issubclass(v, UploadsView) for v in shown))
    assert any(issubclass(view, TotalView) for view in shown)
    assert all(issubclass(view, View) for view in shown)


@pytest.mark.parametrize("channel", HIDING)
@pytest.mark.parametrize("name", SUMMED)
def test_a_hidden_sum_is_the_sum(name: str, channel: str) -> None:
    of = method(name)
    plain = outcome(of, rounds=1).state.model
    hidden = outcome(of, channel=part("channel", channel), rounds=1).state.model

    for key, value in plain.items():
        if value.is_floating_point() and value.numel():
            room = 1e-3 * float(value.abs().max()) + 1e-6
            assert float((hidden[key] - value).abs().max()) <= room, key
        else:
            assert torch.equal(hidden[key], value), key


@pytest.mark.parametrize("name", [*entries("defense"), *entries("channel")])
def test_every_defense_says_who_is_trusted(name: str) -> None:
    kind: Kind = "defense" if name in entries("defense") else "channel"
    one = part(kind, name)

    for word in ("hides", "does_not_hide", "trust", "cost", "paper"):
        assert getattr(one, word), word


def test_a_round_that_nobody_came_to_changes_nothing() -> None:
    sampling = Sampling("poisson", 1)
    of = method("fcf")
    setup = Setup(
        world(of.task), of, part("channel", "plain"), (), {}, sampling, PROTOCOL
    )
    log = run(replace(setup, rounds=12), Machine(workers=1)).state.log

    assert [row["round"] for row in log] == list(range(1, 13))
    assert 0 < sum("loss" in row for row in log) < 12


def test_a_clip_that_follows_the_norms_is_resumed(tmp_path: Path) -> None:
    of, chain = method("fcf"), (choose("defense", "user_dp:quantile=0.5").part,)
    setup = Setup(
        world(of.task),
        of,
        part("channel", "plain"),
        chain,
        protocol=PROTOCOL,
        rounds=4,
    )
    whole = run(setup, Machine(workers=1))
    at = tmp_path / "run.safetensors"

    class Killed(Exception):
        pass

    def kill(done: float, *_: object) -> None:
        if done == 3:
            raise Killed

    with pytest.raises(Killed):
        run(setup, Machine(workers=1), Keeping(at, 1), kill)
    again = run(setup, Machine(workers=1), Keeping(at, 1, True))

    same(whole, again)
    (memory,) = again.state.kept.values()
    assert float(memory["clip"]) == float(whole.state.kept["0"]["clip"]) != 1.0
