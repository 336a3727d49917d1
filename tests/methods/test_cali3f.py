"""Cali3F, FedFast and FedAvg on neural recommenders, against loops over clients."""

from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Generator, Tensor

from privfed.channels.plain import Plain
from privfed.data.splits import leave_one_out
from privfed.data.world import Shape, World
from privfed.data.worlds import demo
from privfed.defenses.gaussian import Gaussian
from privfed.errors import SettingsError
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import SERVER, Round, State
from privfed.machine import Machine
from privfed.messages import Uploads, join
from privfed.methods.cali3f import HEADS, HEARD, Cali3F
from privfed.methods.fedfast import FedFast
from privfed.methods.neural.clustered import CLUSTER, Clustered
from privfed.methods.neural.shared import SharedNeural, dense, items, users
from privfed.methods.neural_avg import NeuralAvg
from privfed.rounds import Keeping, Setup, run
from privfed.seeds import Seeds
from tests.methods import neural_twin as twin
from tests.test_rounds import ATTACKS, ONE, same
from tests.worlds import everyone, opening, shards, uneven

Kind = Literal["gmf", "mlp", "neumf"]
KINDS: tuple[Kind, ...] = ("gmf", "mlp", "neumf")
WORLD = uneven()
SEEDS = Seeds(5)
ROUND = Round(3, SEEDS("train", 3), SEEDS("once"))
SERVED = SEEDS("server", 3)
SMALL: dict[str, Any] = {
    "width": 4,
    "layers": (16, 8, 4),
    "learning_rate": 0.02,
    "batch": 24,
}
CALI = Cali3F(clusters=3, delegates=2, discount=0.5, **SMALL)
FAST = FedFast(clusters=3, delegates=2, discount=0.5, **SMALL)
AVG = NeuralAvg(**SMALL)


def begin(method: SharedNeural, world: World = WORLD) -> dict[str, Tensor]:
    """A first model in which no two clusters have the same head."""
    model = dict(method.init(world.shape, SEEDS("init"))[0])
    rng = Generator().manual_seed(1)
    for name, value in model.items():
        if name not in (CLUSTER, HEARD, f"{SERVER}rounds"):
            noise = 0.1 * torch.randn(value.shape, generator=rng)
            model[name] = value.double() + noise  # Adam magnifies what floats lose
    return model


def uploads_of(method: SharedNeural, model: State, size: int = 100) -> Uploads:
    """What all clients send, trained in shards."""
    return join(
        [method.train(model, {}, s, ROUND).uploads for s in shards(WORLD, size)]
    )


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual.double(), expected, rtol=1e-4, atol=1e-6)


def given_to(model: State, client: int, layers: State) -> State:
    """All that one client trains, when it is given some dense layers."""
    rows = {name: value[client] for name, value in users(model).items()}
    return {**items(model), **rows, **layers}


def head_of(model: State, cluster: int) -> State:
    """A cluster's head, cut from its row by hand."""
    found, at = {}, 0
    for name, value in dense(model).items():
        part = model[HEADS][cluster, at : at + value.numel()]
        found[name], at = part.view(value.shape), at + value.numel()
    assert at == model[HEADS].shape[1]
    return found


def distance(a: State, b: State) -> float:
    return sqrt(sum(float((a[n] - b[n]).square().sum()) for n in b))


# The devices


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [CALI, FAST, AVG], ids=lambda m: type(m).__name__)
def test_uploads_equal_those_of_the_per_client_twin(
    method: SharedNeural, kind: Kind
) -> None:
    method = replace(method, kind=kind)
    model = begin(method)
    found = uploads_of(method, model)

    for k, client in enumerate(found.clients.tolist()):
        shared = given_to(model, client, dense(model))
        runs = {"": (shared, shared)}
        if isinstance(method, Cali3F):
            own = given_to(model, client, head_of(model, int(model[CLUSTER][client])))
            runs = {"global.": (shared, shared), "own.": (own, own)}
        last: State = {}
        for run_name, (start, _) in runs.items():
            last = twin.train_one(method, start, WORLD, client, ROUND)
            for name in dense(model):
                close(found.dense[run_name + name][k], last[name] - start[name])
        for name in users(model):
            close(found.users[name][k], last[name] - shared[name])
        for name, rows in found.rows.items():
            sent = torch.zeros_like(model[name])
            mine = rows.sender == k
            sent[rows.item[mine]] = rows.value[mine]
            close(sent, last[name] - model[name])
    assert found.weight is not None
    assert found.weight.tolist() == WORLD.train.counts[found.clients].tolist()


def test_what_is_sent_is_what_is_told() -> None:
    model = begin(CALI)
    found = uploads_of(CALI, model)

    layers = [*dense(model)]
    assert set(found.dense) == {r + n for r in ("global.", "own.") for n in layers}
    assert set(found.users) == {"users_mf", "users_mlp"}
    assert set(found.rows) == {"items_mf", "items_mlp"}
    assert set(found.scale) == {*found.dense, *found.users, *found.rows}
    for rows in found.rows.values():
        sent = torch.bincount(rows.sender, minlength=len(found.clients))
        assert (sent <= WORLD.train.counts[found.clients] * 5).all()


def test_a_client_downloads_the_model_its_row_and_its_head() -> None:
    for method in (CALI, FAST, AVG):
        model = begin(method)
        layers = sum(v.numel() for v in dense(model).values())
        tables = sum(v.numel() for v in items(model).values())
        row = 4 + 8  # a row of each of the two tables of users
        heads = 2 if isinstance(method, Cali3F) else 1

        assert method.bytes_down(model) == 8 * (tables + row + heads * layers)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [CALI, FAST, AVG], ids=lambda m: type(m).__name__)
def test_scores_are_those_of_the_clusters_head(
    method: SharedNeural, kind: Kind
) -> None:
    method = replace(method, kind=kind)
    model = begin(method)

    found = method.score(model, {}, everyone(WORLD))

    every = torch.arange(WORLD.shape.items)
    for client in range(WORLD.shape.clients):
        layers = dense(model)
        if isinstance(method, Cali3F):
            layers = head_of(model, int(model[CLUSTER][client]))
        p = {n: v.double() for n, v in given_to(model, client, layers).items()}
        close(found[client], twin.logits(p, every))


# The server


def test_a_round_of_the_server_equals_the_algorithm_written_out() -> None:
    model = begin(CALI)
    sent = uploads_of(CALI, model)
    after = CALI.learn(model, sent, SERVED)
    assert sent.weight is not None
    weight, cluster = sent.weight.double(), model[CLUSTER]

    # the shared dense layers: a mean by interactions
    for name, value in dense(model).items():
        change = sent.dense[f"global.{name}"].double()
        mean = sum(w * c for w, c in zip(weight, change, strict=True)) / weight.sum()
        close(after[name], value + mean)

    # the heads: a mean in each cluster, then a pull towards the shared layers
    heads = []
    for p in range(CALI.clusters):
        mine = [k for k, c in enumerate(sent.clients) if cluster[c] == p]
        total = sum(weight[k] for k in mine)
        head = head_of(model, p)
        gradient = {
            name: -torch.stack(
                [weight[k] / total * sent.dense[f"own.{name}"][k] for k in mine]
            ).sum(0)
            for name in head
        }
        zero = {name: torch.zeros(()) for name in head}
        far = distance(head, dense(model))
        pull = CALI.calibrate * distance(gradient, zero) / far
        assert pull < 1  # or the pull would end at the shared layers
        heads.append(
            {
                name: value - gradient[name] - pull * (value - model[name])
                for name, value in head.items()
            }
        )

    # the new clusters' heads: by where their clients come from
    for q in range(CALI.clusters):
        members = (after[CLUSTER] == q).nonzero()[:, 0].tolist()
        known = {int(c): float(w) for c, w in zip(sent.clients, weight, strict=True)}
        mean = sum(w for w in known.values() if w) / sum(w > 0 for w in known.values())
        n = {u: known[u] or mean for u in members}
        for name, value in head_of(after, q).items():
            each = [n[u] * heads[int(cluster[u])][name] for u in members]
            close(value, (torch.stack(each).sum(0) / sum(n.values())).double())


@pytest.mark.parametrize("method", [CALI, FAST], ids=lambda m: type(m).__name__)
def test_user_and_item_rows_are_fast_aggregated(method: Clustered) -> None:
    model = begin(method)
    whole = uploads_of(method, model)
    chosen = [k for k, c in enumerate(whole.clients.tolist()) if c in (2, 3, 7)]
    sent = _some(whole, chosen)
    after = method.learn(model, sent, SERVED)

    for name, table in users(model).items():
        for user in range(WORLD.shape.clients):
            expected = table[user].double()
            mates = [
                sent.users[name][k].double()
                for k, c in enumerate(sent.clients)
                if model[CLUSTER][c] == model[CLUSTER][user]
            ]
            if user in sent.clients:
                expected = expected + sent.users[name][sent.clients == user][0]
            elif mates:
                expected = expected + 0.5 * sum(mates) / len(mates)
            close(after[SERVER + name][user], expected)
    for name, table in items(model).items():
        for item in range(WORLD.shape.items):
            moves = sent.rows[name].value[sent.rows[name].item == item].double()
            theta = moves.abs().sum(1)
            expected = table[item].double()
            if len(moves):
                expected = (theta[:, None] * (table[item] + moves)).sum(0) / theta.sum()
            close(after[name][item], expected)


def _some(sent: Uploads, kept: list[int]) -> Uploads:
    """The uploads of a few clients alone."""
    place = {k: n for n, k in enumerate(kept)}
    rows = {}
    for name, table in sent.rows.items():
        mine = torch.tensor([int(s) in place for s in table.sender])
        sender = torch.tensor([place[int(s)] for s in table.sender[mine]])
        rows[name] = replace(
            table, sender=sender, item=table.item[mine], value=table.value[mine]
        )
    assert sent.weight is not None
    return replace(
        sent,
        clients=sent.clients[kept],
        rows=rows,
        dense={n: v[kept] for n, v in sent.dense.items()},
        users={n: v[kept] for n, v in sent.users.items()},
        weight=sent.weight[kept],
    )


def test_without_calibration_heads_move_as_their_clusters_do() -> None:
    """Whatever the shared layers are, a cluster's head is its own mean alone."""
    free = replace(CALI, calibrate=0.0)
    model = begin(free)
    sent = uploads_of(free, model)
    moved = {n: v + 1.0 if n in dense(model) else v for n, v in model.items()}

    one, other = (free.learn(m, sent, SERVED)[HEADS] for m in (model, moved))
    pulled, drawn = (CALI.learn(m, sent, SERVED)[HEADS] for m in (model, moved))

    assert torch.equal(one, other)
    assert not torch.equal(pulled, drawn)


def test_the_more_calibration_the_nearer_to_one_model_for_all() -> None:
    model = begin(CALI)
    sent = uploads_of(CALI, model)

    def apart(calibrate: float) -> float:
        after = replace(CALI, calibrate=calibrate).learn(model, sent, SERVED)
        return sum(
            distance(head_of(after, p), dense(after)) for p in range(CALI.clusters)
        )

    # all the way, heads differ by what their clusters did this round
    assert apart(0.0) > apart(0.5) > apart(1e6) > 0


def test_a_cluster_without_delegates_keeps_its_head() -> None:
    model = begin(CALI)
    whole = uploads_of(CALI, model)
    cluster = int(model[CLUSTER][whole.clients[-1]])
    others = [
        k for k, c in enumerate(whole.clients) if int(model[CLUSTER][c]) != cluster
    ]
    still = replace(
        _some(whole, others), users={}, rows={}
    )  # nobody moves, so nobody changes cluster

    after = CALI.learn(model, still, SERVED)

    assert torch.equal(after[CLUSTER], model[CLUSTER])
    torch.testing.assert_close(after[HEADS][cluster], model[HEADS][cluster])


def test_subordinates_follow_less_and_less() -> None:
    method = replace(FAST, discount=1.0, fading=0.5)
    model = begin(method)
    sent = _some(uploads_of(method, model), [0])
    mates = model[CLUSTER] == model[CLUSTER][sent.clients[0]]
    mates[sent.clients[0]] = False
    assert mates.any()
    moves = []
    for _ in range(3):
        after = method.learn({**model, CLUSTER: begin(method)[CLUSTER]}, sent, SERVED)
        table = f"{SERVER}users_mf"
        moves.append(float((after[table] - model[table])[mates].norm()))
        model = dict(after)

    assert moves[1] == pytest.approx(moves[0] / 2, rel=1e-3)
    assert moves[2] == pytest.approx(moves[0] / 4, rel=1e-3)


@pytest.mark.parametrize("user_rows", ["averaged", "own"])
def test_averaging_moves_everything_by_its_weighted_mean(
    user_rows: Literal["averaged", "own"],
) -> None:
    method = replace(AVG, user_rows=user_rows)
    model = begin(method)
    channel, sent = Plain(), uploads_of(method, model)
    opened, _ = channel.send(channel.open(opening(WORLD.shape)), sent)
    after = method.apply(model, channel.close(opened).total)
    trained = uploads_of(AVG, model).users
    assert sent.weight is not None
    share = (sent.weight / sent.weight.sum()).double()

    for name, value in dense(model).items():
        close(after[name], value + torch.tensordot(share, sent.dense[name].double(), 1))
    for name, table in users(model).items():
        expected = table.double()
        for k, client in enumerate(sent.clients):
            part = share[k] if user_rows == "averaged" else 1.0
            expected[client] += part * trained[name][k]
        close(after[SERVER + name], expected)
    for name, table in items(model).items():
        expected, rows = table.double(), sent.rows[name]
        for sender, item, value in zip(rows.sender, rows.item, rows.value, strict=True):
            expected[item] += share[sender] * value
        close(after[name], expected)


# Clusters and who is invited


def test_every_cluster_sends_its_delegates() -> None:
    model = begin(CALI)

    found = CALI.invite(model, WORLD.eligible, SERVED)

    assert len(found) == 6
    assert set(found.tolist()) <= set(WORLD.eligible.tolist())
    assert set(model[CLUSTER][found].tolist()) == set(
        model[CLUSTER][WORLD.eligible].tolist()
    )


def test_more_clusters_than_clients_are_refused_with_a_number_that_works() -> None:
    with pytest.raises(SettingsError, match=r"30 clusters.*8 clients.*clusters=2"):
        Cali3F().init(Shape(8, 20), SEEDS("init"))
    FedFast(clusters=2).init(Shape(8, 20), SEEDS("init"))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("width", 0),
        ("layers", ()),
        ("std", 0.0),
        ("learning_rate", float("nan")),
        ("epochs", 0),
        ("batch", 0),
        ("negatives", 0),
        ("clusters", 0),
        ("delegates", 0),
        ("discount", 1.5),
        ("fading", -0.1),
        ("calibrate", -1.0),
        ("calibrate", float("inf")),
    ],
)
def test_an_unusable_setting_is_named(setting: str, value: object) -> None:
    given: dict[str, Any] = {setting: value}
    with pytest.raises(ValueError, match=setting):
        Cali3F(**given)


# The whole loop


def demo_setup(method: SharedNeural, **changes: Any) -> Setup:
    whole = leave_one_out(demo(users=24, items=60))
    plain = Setup(
        whole,
        method,
        Plain(),
        attacks=ATTACKS,
        protocol=Protocol(every=2, negatives=20),
        rounds=3,
    )
    return replace(plain, **changes)


@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.parametrize("method", [CALI, FAST, AVG], ids=lambda m: type(m).__name__)
def test_neither_shards_nor_workers_change_a_result(
    method: SharedNeural, noise: float
) -> None:
    asked = demo_setup(method, defenses=(Gaussian(variance=noise),))
    whole = run(asked, ONE)

    assert whole.state.costs.uploads == 3 * (24 if method is AVG else 6)
    for machine in (Machine(workers=2), Machine(workers=2, shard=1)):
        same(run(asked, machine), whole)


def test_a_run_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    asked, saved = demo_setup(CALI), tmp_path / "state.safetensors"
    run(replace(asked, rounds=2), ONE, Keeping(saved, every=1))

    same(run(asked, ONE, Keeping(saved, resume=True)), run(asked, ONE))


@pytest.mark.parametrize("kind", ["gmf", "neumf"])
@pytest.mark.parametrize("method", [Cali3F, FedFast], ids=lambda m: m.__name__)
def test_it_serves_clients_better_than_popularity(
    method: type[Clustered], kind: Kind
) -> None:
    learns = method(kind=kind, clusters=5, delegates=6, learning_rate=0.05)
    world = leave_one_out(demo(users=100, items=100))
    asked = demo_setup(learns, world=world, attacks={}, rounds=40)
    outcome = run(replace(asked, protocol=Protocol(every=10, negatives=20)), ONE)

    floor = outcome.task.scores(outcome.task.references()["popularity"])
    found = outcome.task.scores(outcome.state.best_test)
    assert found["ndcg@10"].mean() > floor["ndcg@10"].mean() + 0.05
