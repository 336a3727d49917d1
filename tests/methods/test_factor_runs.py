"""Whole runs of the matrix factorization family: defenses, attacks, machines."""

from dataclasses import replace

import pytest
import torch

from privfed.attacks.items.support import Support
from privfed.catalog import lookup
from privfed.channels.denoiser import Denoiser
from privfed.channels.plain import Plain
from privfed.data.splits import by_ratio, leave_one_out
from privfed.data.world import World
from privfed.data.worlds import demo
from privfed.defenses.dp import DP
from privfed.defenses.gaussian import Gaussian
from privfed.errors import PrivfedError, SettingsError
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import Channel, Defense, Method
from privfed.machine import Machine
from privfed.methods.bpr import BPR
from privfed.methods.fcf_original import FCFOriginal
from privfed.methods.fedmf import FedMF
from privfed.methods.fedrec import FedRec
from privfed.rounds import Outcome, Setup, run

DATA = demo(users=24, items=60)
RANKED, RATED = leave_one_out(DATA), by_ratio(DATA, 0, task="rating")
METHODS: dict[str, Method] = {
    "fedmf": FedMF(width=16, start=0.4, start_spread=0.1),
    "fedmf-full": FedMF(width=16, upload="full", steps="all"),
    "fedrec": FedRec(width=16, predict_after=1),
    "fedrec_pp": FedRec(width=16, denoise=True, virtual=2),
    "fcf_original": FCFOriginal(width=16),
    "bpr": BPR(width=16),
}
DEFENSES: dict[str, tuple[Defense, ...]] = {
    "none": (),
    "gaussian": (Gaussian(variance=1e-4),),
    "touched": (Gaussian(variance=1e-4, rows="touched"),),
}
ONE = Machine(workers=1)


def world_of(method: Method) -> World:
    return RATED if method.task == "rating" else RANKED


def setup(method: Method, channel: Channel | None = None, **changes: object) -> Setup:
    plain = Setup(
        world_of(method),
        method,
        channel or Plain(),
        attacks={"support": Support()},
        protocol=Protocol(every=2, negatives=20),
        rounds=3,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def same(first: Outcome, second: Outcome) -> None:
    one, other = first.state, second.state
    for state in ("model", "private"):
        for name, value in getattr(one, state).items():
            assert torch.equal(value, getattr(other, state)[name]), name
    for name, marks in one.marks.items():
        assert torch.equal(marks.value, other.marks[name].value)
    assert torch.equal(one.best_test.value, other.best_test.value)
    for log, again in zip(one.log, other.log, strict=True):
        assert {**log, "seconds": 0} == {**again, "seconds": 0}
    assert one.costs.bytes_up == other.costs.bytes_up


@pytest.mark.parametrize("defense", DEFENSES)
@pytest.mark.parametrize("name", METHODS)
def test_neither_shards_nor_memory_nor_workers_change_a_result(
    name: str, defense: str
) -> None:
    asked = setup(METHODS[name], defenses=DEFENSES[defense])
    whole = run(asked, ONE)

    assert len(whole.state.log) == 3
    for machine in (
        Machine(workers=2),
        Machine(workers=1, shard=1),
        Machine(workers=2, shard=3, memory=64 * 2**20),
    ):
        same(run(asked, machine), whole)


def test_bpr_trains_privately_with_the_same_bits_everywhere() -> None:
    asked = setup(METHODS["bpr"], defenses=(DP(noise_multiplier=1.0),))
    whole = run(asked, ONE)

    same(run(asked, Machine(workers=2, shard=3)), whole)
    [promise] = whole.guarantees
    assert promise.private
    assert promise.unit == "interaction"


def test_a_denoiser_changes_what_is_seen_and_nothing_else() -> None:
    method = METHODS["fedrec_pp"]

    seen, hidden = run(setup(method), ONE), run(setup(method, Denoiser()), ONE)

    same(seen, hidden)


def test_rounds_go_on_where_the_last_one_ended() -> None:
    """A decaying learning rate is counted by the server as it is by the devices."""
    method = METHODS["fedrec"]
    one, three = run(setup(method, rounds=1), ONE), run(setup(method), ONE)

    assert float(one.state.model["server.rounds"]) == 1
    assert float(three.state.model["server.rounds"]) == 3


@pytest.mark.parametrize("name", ["fedrec", "fedrec_pp", "fcf_original"])
def test_interaction_level_dp_is_refused_in_one_line(name: str) -> None:
    asked = setup(METHODS[name], defenses=(DP(),))

    with pytest.raises(SettingsError, match="take --defense user_dp"):
        run(asked, ONE)


@pytest.mark.parametrize("name", ["fedmf", "bpr"])
def test_training_that_diverges_is_an_error_that_names_the_round(name: str) -> None:
    wild = replace(METHODS[name], learning_rate=1e20)  # type: ignore[type-var]

    with pytest.raises(PrivfedError, match=r"round \d+: .*diverged.*learning rate"):
        run(setup(wild, rounds=6), ONE)


@pytest.mark.parametrize("name", ["fedmf", "fedrec", "fedrec_pp"])
def test_ratings_are_predicted_better_than_by_any_mean(name: str) -> None:
    whole = by_ratio(demo(), 0, task="rating")
    _, entry = lookup("method", name)
    kind = {"fedmf": FedMF}.get(name, FedRec)
    asked = setup(kind(**entry.preset), world=whole, rounds=20)

    outcome = run(asked, ONE)

    found = outcome.task.scores(outcome.state.best_test)["rmse"].mean()
    for marks in outcome.task.references().values():
        assert found < 0.97 * outcome.task.scores(marks)["rmse"].mean()


@pytest.mark.parametrize("name", ["bpr", "fcf_original"])
def test_items_are_ranked_better_than_by_popularity(name: str) -> None:
    whole = leave_one_out(demo())
    _, entry = lookup("method", name)
    kind = {"bpr": BPR}.get(name, FCFOriginal)
    asked = setup(kind(**entry.preset), world=whole, rounds=20)

    outcome = run(replace(asked, protocol=Protocol(every=5)), ONE)

    found = outcome.task.scores(outcome.state.best_test)["ndcg@10"].mean()
    [floor] = outcome.task.references().values()
    assert found > 1.1 * outcome.task.scores(floor)["ndcg@10"].mean()
