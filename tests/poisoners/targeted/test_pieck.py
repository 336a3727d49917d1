"""PIECK against loops over the released losses, and its mining by hand."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, cosine_similarity, softplus

from privfed.channels.plain import Plain
from privfed.data.cohort import cohort_of
from privfed.data.splits import leave_one_out
from privfed.data.world import World, ragged
from privfed.data.worlds import demo
from privfed.errors import SettingsError
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import Method, State
from privfed.machine import Machine
from privfed.messages import Rows, Uploads
from privfed.methods.bpr import BPR
from privfed.methods.dl_frs import DLFRS
from privfed.methods.fedncf import FedNCF
from privfed.methods.fedrap import FedRAP
from privfed.methods.mf_frs import MFFRS
from privfed.methods.pfedrec import PFedRec
from privfed.party import Party
from privfed.poisoners.crafting.mining import begin, mine
from privfed.poisoners.targeted.pieck import PIECKIPE, PIECKUEA, toward
from privfed.poisoning import Plot, Poisoner, Sortie
from privfed.rounds import Outcome, Setup, run
from privfed.sampling import Sampling
from privfed.seeds import Stream
from tests.methods.factored import round_of
from tests.poisoners.plots import plot

ITEMS, WIDTH, RATE = 20, 6, 0.5
METHOD = MFFRS(width=WIDTH, learning_rate=RATE)


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def at(plot: Plot, table: Tensor, clients: list[int], number: int) -> Sortie:
    """A round whose clients would send nothing of their own."""
    none = torch.zeros(0, dtype=torch.int64)
    rows = {"items": Rows(none, none, torch.zeros(0, table.shape[1]))}
    here = plot.mine[clients]
    uploads = Uploads(here, rows, scale={"items": RATE})
    return Sortie(number, here, {"items": table}, {}, uploads, Stream(number))


def released_ipe(popular: Tensor, v: Tensor, pull: float) -> Tensor:
    """attack.py of the released code, one target: the loss of PIECKIPE."""
    count = len(popular)
    weighted = torch.arange(count, 0, -1).double()
    weighted = weighted / weighted.sum()
    near = weighted * cosine_similarity(popular, v.repeat(count, 1), dim=1)
    up, down = near[near > 0], near[near <= 0]
    if not len(down):
        return -(up.sum() / (len(up) / pull))
    if not len(up):
        return -(down.sum() / (len(down) / pull))
    return -(up.sum() / (len(up) / pull) + down.sum() / (len(down) / pull))


def released_uea(table: Tensor, popular: Tensor, targets: Tensor) -> Tensor:
    """The same of PIECKUEA, whose gradient is never cleared: (targets, width)."""
    v = table[targets].clone().requires_grad_()
    size = len(popular) // 5
    found, piled = torch.zeros_like(v), torch.zeros_like(v)
    for batch in range(5):
        for t in range(len(targets)):
            for _ in range(3):
                users = table[popular[size * batch : size * (batch + 1)]]
                chance = (users * v[t]).sum(1).sigmoid()
                loss = binary_cross_entropy(chance, torch.ones_like(chance))
                piled += torch.autograd.grad(loss / 5 / len(targets), v)[0]
                found += piled / 3
    return found.detach()


def forged(attack: Poisoner, plot: Plot, table: Tensor) -> tuple[Tensor, Tensor]:
    """(clients, targets, width) gradients of one round, and the popular items."""
    attack = attack.prepare(plot)
    memory = attack.start(plot)
    popular = memory["popular"]
    clients = list(range(len(plot.mine)))
    _, uploads = attack.forge(memory, at(plot, table, clients, 0), plot)
    rows = uploads.rows["items"]
    assert rows.item.view(len(clients), -1).tolist() == [plot.targets.tolist()] * 3
    return rows.value.view(len(clients), -1, WIDTH) / -RATE, popular


@pytest.mark.parametrize("targets", [(4,), (4, 11, 19)])
@pytest.mark.parametrize("away", [0.0, 3.0, -3.0])
def test_ipe_is_the_gradient_of_the_released_loss(
    targets: tuple[int, ...], away: float
) -> None:
    """Cosines of both signs, and of one alone."""
    table = normal(ITEMS, WIDTH) + away * torch.eye(WIDTH)[0]
    table[list(targets)] = table[list(targets)].abs() + 0.1
    here = plot(METHOD, ITEMS, targets=targets)

    found, popular = forged(PIECKIPE(popular=7, pull=0.9), here, table)

    for client, chosen in enumerate(popular):
        for t, item in enumerate(targets):
            v = table[item].double().clone().requires_grad_()
            loss = released_ipe(table[chosen].double(), v, 0.9) / len(targets)
            (expected,) = torch.autograd.grad(loss, v)
            torch.testing.assert_close(
                found[client, t].double(), expected, rtol=1e-4, atol=1e-6
            )


@pytest.mark.parametrize(("share", "pull"), [(0.05, 0.9), (0.2, 0.5)])
def test_ipe_pulls_less_where_many_are_malicious(share: float, pull: float) -> None:
    table = normal(ITEMS, WIDTH)
    honest = round(3 / share)
    here = plot(METHOD, ITEMS, honest=honest)
    found, _ = forged(PIECKIPE(popular=7), here, table)
    known, _ = forged(PIECKIPE(popular=7, pull=1.0), here, table)
    torch.testing.assert_close(found, known * pull)


def test_ipe_leads_toward_popular_rows() -> None:
    popular, target = normal(2, 5, WIDTH), normal(1, WIDTH, seed=1)
    step = target - 0.1 * toward(popular, target)[:, 0]

    def near(v: Tensor) -> Tensor:
        weight = torch.arange(5, 0, -1) / 15
        signs = cosine_similarity(popular, target[None], dim=2) > 0
        alike = torch.where(signs, signs.sum(1, True), (~signs).sum(1, True))
        cosine = cosine_similarity(popular, v[:, None], dim=2)
        return (weight * cosine / alike).sum(1)

    assert (near(step) > near(target.expand(2, -1))).all()


@pytest.mark.parametrize("targets", [(4,), (4, 11, 19)])
def test_uea_is_the_gradient_that_the_released_code_piles_up(
    targets: tuple[int, ...],
) -> None:
    table = normal(ITEMS, WIDTH)
    here = plot(METHOD, ITEMS, targets=targets)

    found, popular = forged(PIECKUEA(popular=12), here, table)

    for client, chosen in enumerate(popular):
        expected = released_uea(table.double(), chosen, here.targets)
        torch.testing.assert_close(found[client].double(), expected, rtol=1e-4, atol=0)


def test_uea_without_repeats_is_the_gradient_of_the_mean_loss() -> None:
    table = normal(ITEMS, WIDTH)
    here = plot(METHOD, ITEMS)

    found, popular = forged(PIECKUEA(popular=10, repeats=0), here, table)

    for client, chosen in enumerate(popular):
        v = table[4].double().clone().requires_grad_()
        score = table[chosen].double() @ v
        (slope,) = torch.autograd.grad(softplus(-score).mean(), v)
        torch.testing.assert_close(found[client, 0].double(), slope, rtol=1e-4, atol=0)


def test_the_first_batch_counts_seven_times_the_last() -> None:
    weights = PIECKUEA().weights(1)[:, 0]
    assert (weights * 5).tolist() == pytest.approx([14, 11, 8, 5, 2])


def moved(table: Tensor, far: dict[int, float]) -> Tensor:
    table = table.clone()
    for item, step in far.items():
        table[item, 0] += step
    return table


def test_every_client_mines_what_moved_between_its_own_first_two_models() -> None:
    here = plot(METHOD, ITEMS, targets=(4,))
    first = normal(ITEMS, WIDTH)
    second = moved(first, {4: 9.0, 7: 3.0, 2: 2.0, 13: 1.0})
    third = moved(second, {5: 8.0, 7: -2.5, 4: 1.0})
    memory = begin(here, 3)
    before = memory["popular"]

    memory, seen = mine(memory, at(here, first, [0, 1], 0), here, ["items"])
    assert torch.equal(seen, before[:2])
    memory, seen = mine(memory, at(here, second, [1, 2], 1), here, ["items"])
    assert seen[0].tolist() == [7, 2, 13]
    assert torch.equal(seen[1], before[2])
    memory, seen = mine(memory, at(here, third, [0, 1, 2], 2), here, ["items"])

    assert seen[0].tolist() == [5, 2, 13]  # first to third; 7 went there and back
    assert seen[1].tolist() == [7, 2, 13]  # as it was
    assert seen[2].tolist()[:2] == [5, 7]  # second to third
    assert set(memory) == {"met", "popular"}  # no model is waited for any more


def test_models_are_kept_while_somebody_waits_for_a_second_one() -> None:
    here = plot(METHOD, ITEMS)
    memory = begin(here, 3)
    for number, clients in enumerate([[0], [1], [0]]):
        table = normal(ITEMS, WIDTH, seed=number)
        memory, _ = mine(memory, at(here, table, clients, number), here, ["items"])
    assert set(memory) == {"met", "popular", "model.1"}


def test_before_that_any_items_but_the_targets_stand_in() -> None:
    here = plot(METHOD, ITEMS, targets=(4, 5))
    popular = begin(here, 18)["popular"]
    assert all(sorted(row) == [*range(4), *range(6, 20)] for row in popular.tolist())
    assert popular[0].tolist() == popular[1].tolist()
    assert popular[0].tolist() != sorted(popular[0].tolist())


def test_a_catalog_without_so_many_items_is_refused() -> None:
    with pytest.raises(SettingsError, match="20 most popular of 19 items"):
        PIECKIPE(popular=20).start(plot(METHOD, ITEMS))


def party(attack: Poisoner, share: float) -> Party:
    return Party(poisoner=attack, share=share, target="least")


def outcome(attack: Poisoner, method: Method, workers: int = 1, **more: Any) -> Outcome:
    world = leave_one_out(demo(users=40, items=60))
    setup = Setup(
        world,
        method,
        Plain(),
        protocol=Protocol(negatives=20, every=4),
        rounds=12,
        sampling=Sampling("epoch", 11),
        party=party(attack, 0.1),
    )
    return run(replace(setup, **more), Machine(workers=workers, shard=3 * workers))


@pytest.mark.parametrize("attack", [PIECKIPE(popular=5), PIECKUEA(popular=10)])
def test_neither_shards_nor_workers_change_a_run(attack: Poisoner) -> None:
    one, two = (outcome(attack, MFFRS(width=8), workers) for workers in (1, 2))
    assert torch.equal(one.state.model["items"], two.state.model["items"])
    assert [one.state.log[k].get("hijack.er@10") for k in range(12)] == [
        two.state.log[k].get("hijack.er@10") for k in range(12)
    ]


@pytest.mark.parametrize(
    ("attack", "reached"), [(PIECKIPE(popular=5), 0.1), (PIECKUEA(popular=20), 0.5)]
)
def test_the_least_popular_item_comes_into_lists(
    attack: Poisoner, reached: float
) -> None:
    world = leave_one_out(demo(users=60, items=200))
    more: dict[str, Any] = {"world": world, "rounds": 60}
    found = outcome(attack, MFFRS(width=8), **more)
    quiet = outcome(attack, MFFRS(width=8), party=party(attack, 0.0), **more)

    assert quiet.state.log[-1]["hijack.er@10"] < 0.05
    assert found.state.log[-1]["hijack.er@10"] > reached


def mlp(model: State, user: Tensor, item: Tensor) -> Tensor:
    """DL-FRS's network by hand: logits of users (users, width) for one item's row."""
    x = torch.cat([user, item.expand(len(user), -1)], 1)
    for name in ("mlp0", "mlp1"):
        x = torch.relu(x @ model[f"{name}.weight"].T + model[f"{name}.bias"])
    return (x @ model["out.weight"].T + model["out.bias"])[:, 0]


def test_uea_changes_the_shared_layers_as_they_are_read() -> None:
    method = DLFRS(width=WIDTH, start_size=1.0)
    here = plot(method, ITEMS)
    model, private = method.init(here.shape, Stream(1))
    attack = PIECKUEA(popular=10, repeats=0).prepare(here)
    memory = attack.start(here)
    own = trained_alone(method, model, private, here)
    sortie = Sortie(0, here.mine, model, {}, own, Stream(0))

    _, uploads = attack.forge(memory, sortie, here)

    for client, chosen in enumerate(memory["popular"]):
        known = {n: v.double().clone().requires_grad_() for n, v in model.items()}
        user = known["items"][chosen].detach()
        loss = softplus(-mlp(known, user, known["items"][4])).mean()
        slopes = torch.autograd.grad(loss, list(known.values()))
        for name, slope in zip(known, slopes, strict=True):
            rate = own.scale.get(name, 1.0)
            sent = (
                uploads.rows[name].value[client]
                if name == "items"
                else uploads.dense[name][client]
            )
            expected = -rate * (slope[4] if name == "items" else slope)
            torch.testing.assert_close(sent.double(), expected, rtol=1e-4, atol=1e-9)


def trained_alone(method: DLFRS, model: State, private: State, plot: Plot) -> Uploads:
    """What the malicious clients' ordinary training comes to."""
    made = PIECKUEA(popular=10).data(plot)
    train = ragged(plot.clients, plot.mine[made.sender], made.item, made.label)
    none = torch.zeros(0, dtype=torch.int64)
    empty = ragged(plot.clients, none, none, torch.zeros(0))
    of = World("by hand", plot.shape, train, empty, empty)
    return method.train(model, private, cohort_of(of, plot.mine), round_of(0)).uploads


@pytest.mark.parametrize("method", [BPR(width=8), FedNCF(width=8), PFedRec(width=8)])
def test_uea_runs_where_rows_can_stand_for_users(method: Method) -> None:
    found = outcome(PIECKUEA(popular=10), method, rounds=4)
    assert "hijack.er@10" in found.state.log[-1]


def test_uea_says_where_they_cannot() -> None:
    with pytest.raises(SettingsError, match="FedRAP scores by a private"):
        PIECKUEA().prepare(plot(FedRAP(width=8), ITEMS))


def test_unusable_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="popular must be at least 1"):
        PIECKIPE(popular=0)
    with pytest.raises(ValueError, match="pull must be positive"):
        PIECKIPE(pull=0)
    with pytest.raises(ValueError, match="popular must be at least batches"):
        PIECKUEA(popular=4)
    with pytest.raises(ValueError, match="repeats must be at least 0"):
        PIECKUEA(repeats=-1)
