"""The federated loop: what may change a result, and what may not."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from privfed.adversary import Attack, NotApplicable, Prior
from privfed.attacks.items.sign_pc import SignPC
from privfed.attacks.items.support import Support
from privfed.channels.plain import Plain
from privfed.data.cohort import Cohort
from privfed.data.splits import leave_one_out
from privfed.data.world import Shape, World
from privfed.data.worlds import demo
from privfed.defenses.dp import DP
from privfed.defenses.gaussian import Gaussian
from privfed.errors import PrivfedError, SettingsError
from privfed.evaluation.protocol import Protocol
from privfed.guesses import Items
from privfed.interfaces import (
    Defense,
    FromUploads,
    Invites,
    Ranker,
    Round,
    State,
    Trained,
    Turn,
    broadcast,
)
from privfed.machine import Machine
from privfed.messages import Total, Uploads
from privfed.methods.fcf import FCF
from privfed.methods.fedavg import FedAvg
from privfed.methods.fedmr import FedMR
from privfed.methods.fedncf import FedNCF
from privfed.methods.fedrap import FedRAP
from privfed.methods.local_sgd import LocalSGD
from privfed.methods.pfedrec import PFedRec
from privfed.rounds import Outcome, Setup, run
from privfed.sampling import Sampling
from privfed.seeds import Seeds, Stream
from privfed.views import (
    ItemsView,
    ModelView,
    TotalView,
    UploadsView,
    View,
)
from tests.worlds import world


def small() -> World:
    """Clients of several sizes, with features and held-out items."""
    data = demo(users=24, items=60)
    whole = leave_one_out(data)
    widths = {name: table.shape[1] for name, table in data.features.items()}
    return replace(whole, shape=Shape(24, 60, widths), features=data.features)


WORLD = small()
METHODS: list[LocalSGD] = [
    FedAvg(width=16, epochs=2),
    FCF(width=16, epochs=2),
    FedNCF(width=16, epochs=2),
    PFedRec(width=16, batch=32),
    PFedRec(width=16, view="local"),
    FedRAP(width=16, epochs=2),
    FedMR(width=16, id_width=16, epochs=2, backbone="fcf"),
    FedMR(width=16, id_width=16, epochs=1, backbone="fedrap", router="item"),
]
DEFENSES: dict[str, tuple[Defense, ...]] = {
    "none": (),
    "gaussian": (Gaussian(variance=0.01),),
    "dp": (DP(noise_multiplier=1.0, sampling_rate=0.5),),
}
ATTACKS: dict[str, Attack] = {"support": Support(), "sign_pc": SignPC()}
ONE = Machine(workers=1)


def setup(trains: LocalSGD, **changes: object) -> Setup:
    """Three rounds with two attacks."""
    plain = Setup(
        WORLD,
        replace(trains, learning_rate=0.01),
        Plain(),
        attacks=ATTACKS,
        protocol=Protocol(every=2, negatives=20),
        rounds=3,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def everything(outcome: Outcome) -> dict[str, object]:
    """All that a run found, times left out."""
    state = outcome.state
    found: dict[str, object] = {
        "log": [{k: v for k, v in x.items() if k != "seconds"} for x in state.log],
        "best": state.best,
        "bytes": (state.costs.bytes_up, state.costs.bytes_down, state.costs.uploads),
        "guarantees": list(outcome.guarantees),
    }
    found |= {f"model {n}": v for n, v in state.model.items()}
    found |= {f"private {n}": v for n, v in state.private.items()}
    found |= {name: marks.value for name, marks in state.marks.items()}
    found["best"] = state.best_test.value
    for name, guess in outcome.guesses.items():
        assert isinstance(guess, Items)
        found[f"guess {name}"] = torch.cat(
            [guess.score.flatten(), guess.chosen.flatten()]
        )
    return found


def same(first: Outcome, second: Outcome) -> None:
    one, other = everything(first), everything(second)
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, Tensor):
            assert torch.equal(value, other[name]), name  # type: ignore[arg-type]
        else:
            assert value == other[name], name


def name(method: LocalSGD) -> str:
    return type(method).__name__.lower()


@pytest.mark.parametrize("defense", DEFENSES)
@pytest.mark.parametrize("method", METHODS, ids=name)
def test_neither_shards_nor_memory_nor_workers_change_a_result(
    method: LocalSGD, defense: str
) -> None:
    asked = setup(method, defenses=DEFENSES[defense])
    whole = run(asked, ONE)

    assert len(whole.state.log) == 3
    assert "utility.ndcg@10" in whole.state.log[1]
    for machine in (
        Machine(workers=2),
        Machine(workers=1, shard=1),
        Machine(workers=2, shard=3, memory=64 * 2**20),
    ):
        same(run(asked, machine), whole)


def test_a_seed_is_a_run() -> None:
    asked = setup(METHODS[1])

    same(run(asked, ONE), run(asked, ONE))
    other = run(replace(asked, seed=1), ONE)
    assert not torch.equal(
        other.state.model["items"], run(asked, ONE).state.model["items"]
    )


def test_private_state_of_one_round_is_where_the_next_begins() -> None:
    """The clients' own tensors are kept: the second round does not start anew."""
    asked = setup(FedRAP(width=16, epochs=1), attacks={})
    one = run(replace(asked, rounds=1), ONE).state.private
    two = run(replace(asked, rounds=2), ONE).state.private

    touched = one["own_items"].flatten(2).any(2)
    assert touched.any()
    assert (two["own_items"].any(2) & touched).sum() == touched.sum()
    assert not torch.equal(one["head.weight"], two["head.weight"])


@pytest.mark.parametrize("method", METHODS[:2], ids=name)
def test_adding_an_attack_changes_nobodys_draws(method: LocalSGD) -> None:
    asked = setup(method, defenses=DEFENSES["gaussian"])
    alone, watched = run(replace(asked, attacks={}), ONE), run(asked, ONE)
    only = run(replace(asked, attacks={"sign_pc": SignPC()}), ONE)

    found, expected = everything(watched), everything(alone)
    assert set(found) - set(expected) == {"guess support", "guess sign_pc"}
    for key, value in expected.items():
        if isinstance(value, Tensor):
            assert torch.equal(value, found[key]), key  # type: ignore[arg-type]
    alone_guess = everything(only)["guess sign_pc"]
    assert torch.equal(alone_guess, found["guess sign_pc"])  # type: ignore[arg-type]


@dataclass(frozen=True)
class Sums(Attack):
    """An attack that needs one kind of view and keeps what it was handed."""

    kind: type[View] = TotalView

    paper = "none"

    @property
    def sees(self) -> tuple[type[View], ...]:  # type: ignore[override]
        return (self.kind,)

    def start(self, prior: Prior) -> State:
        return {"calls": torch.zeros(())}

    def observe(self, memory: State, view: View) -> State:
        assert type(view) is self.kind
        return {"calls": memory["calls"] + 1}

    def guess(self, memory: State, prior: Prior) -> Items:
        count = int(memory["calls"])
        return Items(torch.arange(count), torch.zeros(count, 1), torch.zeros(count, 1))


def test_an_attack_is_handed_its_own_kind_of_view_and_nothing_more() -> None:
    asked = setup(METHODS[0], attacks={"totals": Sums(), "items": Sums(ItemsView)})
    guesses = run(asked, Machine(workers=1, shard=1)).guesses

    totals, items = guesses["totals"], guesses["items"]
    assert isinstance(totals, Items)
    assert isinstance(items, Items)
    assert len(totals.clients) == 3  # once a round
    assert len(items.clients) == 3 * 24  # once a shard


@dataclass(frozen=True)
class Blind(Plain):
    """A channel that shows totals only."""

    shows = (TotalView,)  # type: ignore[assignment]


def test_an_attack_without_its_view_is_not_applicable() -> None:
    outcome = run(setup(METHODS[0], channel=Blind()), ONE)

    refused = outcome.guesses["sign_pc"]
    assert isinstance(refused, NotApplicable)
    assert UploadsView.__name__ in refused.reason
    assert "TotalView" in refused.reason


def test_patience_ends_a_run_that_gets_no_better() -> None:
    still = replace(METHODS[0], learning_rate=1e-30)  # nothing ever changes
    asked = setup(METHODS[0], method=still, attacks={}, rounds=30)
    asked = replace(asked, protocol=Protocol(every=2, negatives=20), patience=3)

    state = run(asked, ONE).state

    assert state.best.round == 2
    assert state.next == 8  # three evaluations later
    assert len(run(replace(asked, patience=0, rounds=9), ONE).state.log) == 9


def test_the_best_round_is_the_one_validation_chose() -> None:
    asked = setup(
        METHODS[1], attacks={}, rounds=6, protocol=Protocol(every=1, negatives=20)
    )
    state = run(asked, ONE).state

    seen = [row["validation.ndcg@10"] for row in state.log]
    assert state.best.value == max(seen)
    assert state.best.round == 1 + seen.index(max(seen))
    stopped = run(replace(asked, rounds=state.best.round), ONE).state
    assert torch.equal(state.best_test.value, stopped.marks["test"].value)


@pytest.mark.parametrize("method", [FCF(width=16), FedNCF(width=16)], ids=name)
def test_training_that_diverges_is_an_error_that_names_the_round(
    method: LocalSGD,
) -> None:
    wild = replace(method, learning_rate=1e30)

    with pytest.raises(PrivfedError, match=r"round \d+: .*diverged.*learning rate"):
        run(setup(method, method=wild), ONE)


def test_a_population_without_training_data_is_refused() -> None:
    empty = world([[], []], 5, [[1], [2]])

    with pytest.raises(SettingsError, match="no client has a training interaction"):
        run(setup(METHODS[0], world=empty), ONE)


def test_clients_without_data_take_no_part_and_are_still_served() -> None:
    of = world([[0, 1, 2], [], [3, 4]], 40, [[5], [6], [7]])
    outcome = run(setup(METHODS[0], world=of, attacks={}), ONE)

    assert outcome.state.costs.uploads == 2 * 3
    assert (outcome.state.marks["test"].value < torch.inf).all()


def test_two_ways_of_private_training_exclude_each_other() -> None:
    with pytest.raises(SettingsError, match="dp and dp cannot go together"):
        run(setup(METHODS[0], defenses=(*DEFENSES["dp"], *DEFENSES["dp"])), ONE)


@dataclass(frozen=True)
class Halves(Defense):
    """A server step that halves the total."""

    def on_total(self, total: Total, turn: Turn) -> Total:
        return replace(total, tables={n: v / 2 for n, v in total.tables.items()})

    def guarantee(self) -> object:  # type: ignore[override]
        return "none"


def test_a_step_on_the_total_is_taken() -> None:
    one = setup(METHODS[1], attacks={}, rounds=1)
    start = one.method.init(WORLD.shape, Seeds(0)("init"))[0]["items"]
    full = run(one, ONE).state.model["items"] - start
    half = run(replace(one, defenses=(Halves(),)), ONE).state.model["items"] - start

    torch.testing.assert_close(half, full / 2, rtol=1e-4, atol=1e-7)


def test_bytes_are_those_of_the_rows_sent() -> None:
    """One client that draws no negative twice: an id and a row each, and a weight."""
    of = world([[0, 1, 2]], 60, [[3]])
    method = FedAvg(width=16, epochs=1, negatives=1)
    asked = setup(method, world=of, attacks={"support": Support()}, rounds=1)
    outcome = run(asked, ONE)

    guess = outcome.guesses["support"]
    assert isinstance(guess, Items)
    sent = int((guess.score[0] > guess.score[0].min()).sum())
    assert 4 <= sent <= 6  # three positives, and a negative or more
    assert outcome.state.costs.bytes_up == sent * (4 + 16 * 4) + 4
    assert outcome.state.costs.bytes_down == 60 * 16 * 4


def test_progress_tells_every_round() -> None:
    told: list[tuple[float, int, bool]] = []
    run(setup(METHODS[0]), ONE, None, lambda n, of, m: told.append((n, of, bool(m))))

    assert [n for n, _, measured in told if measured] == [1, 2, 3]
    parts = [n for n, _, measured in told if not measured]
    assert parts == sorted(parts)
    assert all(0 < n < 3 and not float(n).is_integer() for n in parts)
    assert {of for _, of, _ in told} == {3}


def test_only_sampled_clients_upload() -> None:
    asked = setup(METHODS[0], sampling=Sampling("uniform", 5), rounds=4)
    outcome = run(asked, ONE)

    assert outcome.state.costs.uploads == 20
    seen = outcome.guesses["support"]
    assert isinstance(seen, Items)
    assert 5 <= len(seen.clients) <= 20


@dataclass(frozen=True)
class Sequential(FromUploads, Ranker):
    """A server that keeps the mean of the last round's uploads, client by client."""

    negatives: int = 1

    def init(self, shape: Shape, stream: Stream) -> tuple[State, State]:
        return {"server.mean": torch.zeros(2)}, {}

    def train(
        self, model: State, private: State, cohort: Cohort, round: Round
    ) -> Trained:
        value = torch.stack([cohort.clients, cohort.counts], 1).float()
        sent = Uploads(cohort.clients, dense={"mean": value})
        return Trained({}, {}, sent, torch.ones(len(cohort.clients)))

    def learn(self, model: State, uploads: Uploads, stream: Stream) -> State:
        return {"server.mean": uploads.dense["mean"].mean(0)}

    def score(self, model: State, private: State, cohort: Cohort) -> Tensor:
        return torch.rand(len(cohort.clients), cohort.shape.items)

    def footprint(self, shape: Shape, positives: int) -> int:
        return 4 * positives + 4


def test_a_server_can_learn_from_every_single_upload() -> None:
    asked = setup(METHODS[0], method=Sequential(), attacks={}, rounds=1)
    counts = WORLD.train.counts.double()
    wanted = torch.stack([torch.arange(24.0).mean(), counts.mean()]).float()

    state = run(asked, Machine(workers=1, shard=1)).state

    torch.testing.assert_close(state.model["server.mean"], wanted)
    assert state.costs.bytes_down == 0  # the server keeps its model to itself


def test_a_server_that_needs_single_uploads_must_be_shown_them() -> None:
    needy = setup(METHODS[0], method=Sequential(), attacks={})

    with pytest.raises(SettingsError, match="single uploads, which the channel hides"):
        run(replace(needy, channel=Blind()), ONE)
    with pytest.raises(SettingsError, match="Sequential and Halves cannot go together"):
        run(replace(needy, defenses=(Halves(),)), ONE)
    with pytest.raises(SettingsError, match="Sequential has no training in which"):
        run(replace(needy, defenses=DEFENSES["dp"]), ONE)


def test_what_the_server_keeps_is_shown_to_no_client() -> None:
    asked = setup(METHODS[0], method=Sequential(), attacks={"it": Sums(ModelView)})

    guess = run(asked, ONE).guesses["it"]
    assert isinstance(guess, Items)
    assert broadcast({"server.mean": torch.ones(1), "items": torch.ones(1)}).keys() == {
        "items"
    }


@dataclass(frozen=True)
class Choosy(Sequential, Invites):
    """Asks for the clients that it saw least of."""

    def invite(self, model: State, eligible: Tensor, stream: Stream) -> Tensor:
        return eligible[:3] if model["server.mean"][0] == 0 else eligible[-5:]


def test_a_method_may_choose_its_clients() -> None:
    asked = setup(METHODS[0], method=Choosy(), attacks={}, rounds=2)

    assert run(asked, ONE).state.costs.uploads == 3 + 5
    with pytest.raises(SettingsError, match="chooses the clients of a round itself"):
        run(replace(asked, sampling=Sampling("uniform", 4)), ONE)
