"""DP-SGD of methods beyond local SGD: sensitivity, clipping, noise, shards.

What a device releases is told apart by tensor and scaled back to the sum of clipped
gradients, so that one test serves all methods.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

import pytest
import torch
from opacus.grad_sample import GradSampleModule
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from privfed.channels.plain import Plain
from privfed.data.cohort import cohort_of
from privfed.data.splits import by_ratio, leave_one_out
from privfed.data.world import World
from privfed.data.worlds import demo
from privfed.defenses.dp import DP
from privfed.devices.batches import Samples, collect
from privfed.devices.dpsgd import InteractionDP
from privfed.devices.negatives import Negatives
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import Method, PerInteraction, Round, State, Trained
from privfed.machine import Machine
from privfed.methods.bpr import BPR
from privfed.methods.ditto import Ditto
from privfed.methods.fcf import FCF
from privfed.methods.federeco import Federeco
from privfed.methods.fedmf import FedMF
from privfed.methods.fedncf import FedNCF
from privfed.methods.fedrec import FedRec
from privfed.methods.metamf.method import MetaMF
from privfed.methods.metamf.server import generate, item_rows
from privfed.methods.neural_avg import NeuralAvg
from privfed.rounds import Outcome, Setup, run
from tests.methods.factored import SEEDS, rated, shaken
from tests.methods.neumf import Twin
from tests.worlds import everyone, lay, uneven, world

ROUND = Round(3, SEEDS("train", 3), SEEDS("once"))
EXPECTED = 5.0
RATE = 0.02
WORLD = rated(uneven((6, 2, 9, 1), items=12))  # so few items that records share rows
LAYERS = (16, 8, 4)
SMALL: Mapping[str, Any] = {
    "width": 8,
    "layer": 4,
    "low": 4,
    "collaborative": 12,
    "hidden": 16,
    "user_width": 8,
}


@dataclass(frozen=True)
class Case:
    """A method, and by what factor a clipped sum enters each tensor it releases."""

    name: str
    method: Method
    rate: Callable[[str], float]

    @property
    def private(self) -> Method:
        assert isinstance(self.method, PerInteraction)
        return self.method.private_training()


def at_rate(_: str) -> float:
    return RATE


def by_mean(_: str) -> float:
    return RATE / EXPECTED


def of_fedrec(name: str) -> float:
    rate = RATE * FedRec().decay ** ROUND.number
    return rate / EXPECTED if name == "users" else 1.0


def of_metamf(_: str) -> float:
    return 1 / EXPECTED


CASES = [
    Case("fedmf", FedMF(4, RATE, 0.3, start_spread=1.0), at_rate),
    Case("fedrec", FedRec(4, RATE, regularization=0.3, virtual=0), of_fedrec),
    Case("bpr", BPR(width=4, learning_rate=RATE, negatives=2), at_rate),
    Case("fedncf", FedNCF(width=8, learning_rate=RATE), by_mean),
    *(
        Case(
            f"fedavg_neumf-{kind}",
            NeuralAvg(kind=kind, layers=LAYERS, learning_rate=RATE),
            by_mean,
        )
        for kind in ("gmf", "mlp", "neumf")
    ),
    Case(
        "own-rows",
        NeuralAvg(user_rows="own", layers=LAYERS, learning_rate=RATE),
        by_mean,
    ),
    Case("ditto", Ditto(layers=LAYERS, learning_rate=RATE), by_mean),
    Case("federeco", Federeco(8, LAYERS, learning_rate=RATE), by_mean),
    *(
        Case(f"metamf-{variant}", MetaMF(variant, **SMALL), of_metamf)
        for variant in ("full", "si", "sm")
    ),
]
BY_NAME = {case.name: case for case in CASES}
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def rule(clip: float, noise: float = 0.0, steps: int = 1) -> InteractionDP:
    return InteractionDP(clip, noise, 1.0, steps, EXPECTED)


def trained(method: Method, of: World, privacy: InteractionDP | None) -> Trained:
    """Everybody's round, from a state in which no two clients are alike."""
    model, private = shaken(method, WORLD if of.shape == WORLD.shape else of)
    return method.train(model, private, everyone(of), replace(ROUND, privacy=privacy))


def released(
    case: Case, of: World, privacy: InteractionDP, method: Method | None = None
) -> dict[str, Tensor]:
    """Each client's changes, (clients, ...), over their rates: clipped sums.

    That what is kept changes as well: uploads of later rounds depend on it.
    """
    method = method or case.private
    model, private = shaken(method, of)
    found = method.train(model, private, everyone(of), replace(ROUND, privacy=privacy))
    sent = found.uploads
    size = (of.shape.clients, of.shape.items, -1)
    told = {n: rows.value.view(size) for n, rows in sent.rows.items()}
    told |= {**sent.dense, **sent.users}
    if case.name != "ditto":  # whose kept run no upload depends on
        told |= {n: v - private[n] for n, v in found.private.items()}
    return {n: (v / case.rate(n)).double() for n, v in told.items()}


OWN = {"users", "users_mf", "users_mlp", "user_mf", "user_mlp"}  # one client's alone


@pytest.mark.parametrize(
    "case", [c for c in CASES if "metamf" not in c.name], ids=lambda case: case.name
)
def test_what_one_client_trains_alone_may_step_faster(case: Case) -> None:
    """The same clipped sum and the same noise, times another rate."""
    plain = rule(0.5, 2.0)
    one, three = (
        released(case, WORLD, replace(plain, own_rate=rate)) for rate in (1.0, 3.0)
    )

    assert OWN & one.keys()
    for name, value in one.items():
        factor = 3.0 if name in OWN else 1.0
        torch.testing.assert_close(
            three[name], value * factor, rtol=1e-3, atol=1e-3, msg=name
        )


def length(tensors: Mapping[str, Tensor], client: int) -> float:
    return sqrt(sum(float(v[client].square().sum()) for v in tensors.values()))


def minus(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value - b[name] for name, value in a.items()}


def without_last(of: World, client: int) -> World:
    """The world without one client's last interaction; other draws stay as they are."""
    train, gone = of.train, int(of.train.offsets[client + 1]) - 1
    kept = torch.ones(len(train.item), dtype=torch.bool)
    kept[gone] = False
    offsets = train.offsets.clone()
    offsets[client + 1 :] -= 1
    less = replace(
        train,
        offsets=offsets,
        item=train.item[kept],
        label=train.label[kept],
        context=train.context[kept],
    )
    return replace(of, train=less)


@every_case
@pytest.mark.parametrize("client", range(4))
def test_one_interaction_moves_a_release_by_the_clip_at_most(
    case: Case, client: int
) -> None:
    """Brute force over neighbors: all that the device released, tensors together."""
    other = without_last(WORLD, client)
    moved = minus(released(case, WORLD, rule(1e6)), released(case, other, rule(1e6)))
    whole = length(moved, client)  # the interaction's own gradient, not clipped
    assert whole > 0
    for clip in (0.3 * whole, 0.9 * whole, 2 * whole):
        moved = minus(
            released(case, WORLD, rule(clip)), released(case, other, rule(clip))
        )
        assert length(moved, client) == pytest.approx(min(clip, whole), rel=2e-3)
        for bystander in set(range(4)) - {client}:
            assert length(moved, bystander) < 1e-3  # rounding


@every_case
def test_without_clipping_a_release_is_larger_than_a_small_clip_allows(
    case: Case,
) -> None:
    """The bound of the test above is not met by accident: plain training breaks it."""
    loud, quiet = (released(case, WORLD, rule(clip)) for clip in (1e6, 1e-3))
    assert length(loud, 2) > 10 * length(quiet, 2)
    assert length(quiet, 2) <= 9 * 1e-3 * (1 + 1e-3)


def clipped_sum(
    records: Sequence[Mapping[str, Tensor]], clip: float
) -> dict[str, Tensor]:
    """The oracle's: each record's gradient scaled to ``clip``, then added up."""
    total: dict[str, Tensor] = {}
    for record in records:
        norm = sqrt(sum(float(g.square().sum()) for g in record.values()))
        for name, g in record.items():
            total[name] = total.get(name, 0.0) + g * min(1.0, clip / norm)
    return total


def agrees(
    case: Case, records: Callable[[int], Sequence[Mapping[str, Tensor]]]
) -> None:
    """A release is minus the oracle's clipped sum, some records clipped, some not."""
    lengths = [
        sqrt(sum(float(g.square().sum()) for g in record.values()))
        for client in range(4)
        for record in records(client)
    ]
    clip = sorted(lengths)[len(lengths) // 2]
    told = released(case, WORLD, rule(clip))
    for client in range(4):
        expected = clipped_sum(records(client), clip)
        assert expected.keys() == told.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                -told[name][client].view(value.shape),
                value.double(),
                rtol=2e-3,
                atol=2e-4,
            )


def own(client: int) -> tuple[Tensor, Tensor]:
    part = slice(*WORLD.train.offsets[client : client + 2].tolist())
    return WORLD.train.item[part], WORLD.train.label[part].double()


@pytest.mark.parametrize(("name", "scale"), [("fedmf", 2.0), ("fedrec", 1.0)])
def test_factorization_clips_as_autograd_by_record_does(
    name: str, scale: float
) -> None:
    case = BY_NAME[name]
    model, private = shaken(case.private, WORLD)
    table = model["items"].double()

    def loss(x: Tensor, y: Tensor, item: Tensor, label: Tensor) -> Tensor:
        row = y.index_select(0, item[None])[0]
        squares = (label - x @ row) ** 2 + 0.3 * (x @ x + row @ row)
        return scale / 2 * squares

    def records(client: int) -> Sequence[Mapping[str, Tensor]]:
        item, label = own(client)
        x = private["users"][client].double()
        by_record = torch.func.vmap(
            torch.func.grad(loss, argnums=(0, 1)), in_dims=(None, None, 0, 0)
        )
        users, items = by_record(x, table, item, label)
        return [{"users": u, "items": i} for u, i in zip(users, items, strict=True)]

    agrees(case, records)


def drawn(method: Method, stream: Any) -> Samples:
    rule = Negatives(method.negatives, "nothing")
    return collect(everyone(WORLD), rule, stream.of("negatives"))


@pytest.mark.filterwarnings("ignore:Full backward hook")  # ids have no gradient
@pytest.mark.parametrize(
    "name",
    ["fedavg_neumf-gmf", "fedavg_neumf-mlp", "fedavg_neumf-neumf", "federeco", "ditto"],
)
def test_neural_recommenders_clip_as_opacus_does(name: str) -> None:
    """Opacus' per-sample gradients of a PyTorch module, added up by record."""
    case = BY_NAME[name]
    method: Any = case.private
    model, _ = shaken(method, WORLD)
    weights = {n.removeprefix("server."): v for n, v in model.items()}
    neural = method.neural if name == "federeco" else method.neural()
    module = GradSampleModule(Twin(neural, 4, 12).load(weights), loss_reduction="sum")
    samples = drawn(method, ROUND.always if name == "federeco" else ROUND.stream)

    def records(client: int) -> Sequence[Mapping[str, Tensor]]:
        count, group = int(samples.real[client].sum()), samples.slot.shape[2]
        item = samples.item[client][samples.slot[client, :count]].flatten()
        label = torch.zeros(count, group, dtype=torch.float64)
        label[:, 0] = 1.0
        module.zero_grad()
        logit = module(torch.full_like(item, client), item)
        told = binary_cross_entropy_with_logits(
            logit, label.flatten(), reduction="none"
        )
        torch.autograd.backward(told.sum() / group)
        found: list[dict[str, Tensor]] = [{} for _ in range(count)]
        for path, value in module._module.named_parameters():
            each = value.grad_sample.unflatten(0, (count, group)).sum(1)
            kind, rest = path.split(".", 1)
            name = rest if kind == "dense" else f"{kind}_{rest.removesuffix('.weight')}"
            for k in range(count):
                found[k][name] = each[k][client] if kind == "users" else each[k]
        return found

    agrees(case, records)


@pytest.mark.parametrize("variant", ["full", "si", "sm"])
def test_metamf_clips_as_autograd_by_record_does(variant: str) -> None:
    case = BY_NAME[f"metamf-{variant}"]
    method: Any = case.private
    model, _ = shaken(method, WORLD)
    clients = torch.arange(4)
    sent = generate(model, method.sizes, clients)

    def loss(p: dict[str, Tensor], item: Tensor, label: Tensor) -> Tensor:
        row = p["items"].index_select(0, item[None])[0]
        hidden = (p["first.weight"] @ row + p["first.bias"]).relu()
        return ((p["second.weight"] @ hidden + p["second.bias"] - label) ** 2).sum()

    def records(client: int) -> Sequence[Mapping[str, Tensor]]:
        every = torch.arange(12)
        table = item_rows(model, method.sizes, sent, torch.full((12,), client), every)
        p = {
            "items": table,
            "first.weight": sent.network.first[client],
            "first.bias": sent.network.first_bias[client],
            "second.weight": sent.network.second[client],
            "second.bias": sent.network.second_bias[client],
        }
        p = {n: v.double() for n, v in p.items()}
        item, label = own(client)
        by_record = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
        found = by_record(p, item, label)
        return [{n: v[k] for n, v in found.items()} for k in range(len(item))]

    agrees(case, records)


def stated(case: Case, noise: InteractionDP) -> float:
    """Deviation of a noised round's release, in units of clipped sums."""
    steps = 1 / sqrt(noise.steps) if "metamf" in case.name else sqrt(noise.steps)
    return noise.clip * noise.noise_multiplier * steps


def is_standard(ratio: float, count: int) -> bool:
    """Whether a measured over a stated deviation is 1 within five of its errors."""
    return abs(ratio - 1) < 5 / sqrt(2 * count)


@every_case
@pytest.mark.parametrize("steps", [1, 3])
def test_noise_has_the_stated_scale_on_every_number(case: Case, steps: int) -> None:
    """A client without data releases nothing but noise: its scale can be measured."""
    of = replace(rated(world([[]] * 60, items=40)), task=WORLD.task)
    privacy = rule(2.0, 3.0, steps)

    for name, value in released(case, of, privacy).items():
        ratio = value.std().item() / stated(case, privacy)
        assert is_standard(ratio, value.numel()), name
        if value.numel() > 1500:
            assert not is_standard(ratio * 2 / 3, value.numel())
            assert not is_standard(ratio * 3 / 2, value.numel())


@every_case
def test_rows_with_data_get_the_same_noise(case: Case) -> None:
    of = rated(uneven((20,) * 40, items=30))
    loud, quiet = (released(case, of, rule(0.5, noise)) for noise in (4.0, 0.0))

    for name, value in minus(loud, quiet).items():
        ratio = value.std().item() / stated(case, rule(0.5, 4.0))
        assert is_standard(ratio, value.numel()), name


@every_case
def test_no_two_tensors_share_their_noise(case: Case) -> None:
    of = rated(world([[]] * 60, items=40))
    told = released(case, of, rule(1.0, 1.0))

    names = sorted(told)
    for k, one in enumerate(names):
        for other in names[k + 1 :]:
            size = min(told[one][0].numel(), told[other][0].numel())
            a, b = (told[n].flatten(1)[:, :size].flatten() for n in (one, other))
            if len(a) > 100:
                pair = torch.corrcoef(torch.stack([a, b]))[0, 1]
                assert abs(float(pair)) < 5 / sqrt(len(a)), (one, other)


@every_case
def test_an_upload_shows_neither_items_nor_their_number(case: Case) -> None:
    sent = trained(case.private, WORLD, rule(0.5, 1.0)).uploads

    assert sent.weight is None
    for rows in sent.rows.values():
        assert rows.item.tolist() == list(range(12)) * 4
        assert bool((rows.value != 0).all())
    assert len(set(sent.bytes_up(WORLD.shape).tolist())) == 1


def test_what_ditto_keeps_to_itself_has_no_noise_and_reaches_no_upload() -> None:
    method = BY_NAME["ditto"].private
    calm, loud = (trained(method, WORLD, rule(0.5, noise)) for noise in (0.0, 9.0))

    for name, value in calm.private.items():
        assert torch.equal(value, loud.private[name])
    assert not torch.equal(
        calm.uploads.dense["out.weight"], loud.uploads.dense["out.weight"]
    )


EVEN = rated(uneven((5, 5, 5), items=12))
NEUTRAL: Mapping[str, tuple[Method, Method]] = {
    "fedmf": (
        FedMF(4, RATE, 0.0, "all", "old", "full", start_spread=1.0),
        FedMF(4, RATE, 0.0, start_spread=1.0).private_training(),
    ),
    "fedrec": (
        FedRec(4, RATE, regularization=0.3, virtual=0),
        FedRec(4, RATE, regularization=0.3, virtual=0).private_training(),
    ),
    "federeco": (
        Federeco(
            8,
            LAYERS,
            "sgd",
            RATE,
            decay=0,
            clip=None,
            epochs=1,
            batch=1000,
            negatives_exclude="nothing",
        ),
        Federeco(8, LAYERS, learning_rate=RATE).private_training(),
    ),
    "metamf": (
        MetaMF(**SMALL, average="clients"),
        MetaMF(**SMALL).private_training(),
    ),
}


@pytest.mark.parametrize("name", NEUTRAL)
def test_without_noise_or_clipping_it_is_one_plain_step(name: str) -> None:
    plain, private = NEUTRAL[name]

    a, b = trained(plain, EVEN, None), trained(private, EVEN, rule(1e9))

    for table, rows in a.uploads.rows.items():
        whole = torch.zeros(3, 12, rows.value.shape[1])
        whole[rows.sender, rows.item] = rows.value
        close(b.uploads.rows[table].value.view(whole.shape), whole)
    for one, other in (
        (a.uploads.dense, b.uploads.dense),
        (a.uploads.users, b.uploads.users),
        (a.private, b.private),
    ):
        assert one.keys() == other.keys()
        for key, value in one.items():
            close(other[key], value)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)


DATA = demo(users=24, items=60)
RANKED, RATED = leave_one_out(DATA), by_ratio(DATA, 0, task="rating")
RUNS: Mapping[str, Method] = {
    "fedmf": FedMF(width=16, start=0.4, start_spread=0.1),
    "fedrec": FedRec(width=16, virtual=0),
    "fedavg_neumf": NeuralAvg(layers=(16, 8, 4)),
    "ditto": Ditto(layers=(16, 8, 4)),
    "federeco": Federeco(width=8, layers=(16, 8, 4)),
    "metamf": MetaMF(**SMALL),
}


def outcome(name: str, machine: Machine) -> Outcome:
    method = RUNS[name]
    asked = Setup(
        RATED if method.task == "rating" else RANKED,
        method,
        Plain(),
        (DP(noise_multiplier=1.0, sampling_rate=0.5, steps=2),),
        protocol=Protocol(every=2, negatives=20),
        rounds=2,
    )
    return run(asked, machine)


@pytest.mark.parametrize("name", RUNS)
def test_neither_shards_nor_memory_nor_workers_change_a_bit(name: str) -> None:
    whole = outcome(name, Machine(workers=1))

    [promise] = whole.guarantees
    assert promise.private
    assert promise.unit == "interaction"
    for machine in (Machine(workers=1, shard=1), Machine(workers=2, shard=3)):
        other = outcome(name, machine).state
        for kind in ("model", "private"):
            states: State = getattr(whole.state, kind)
            for key, value in states.items():
                assert torch.equal(value, getattr(other, kind)[key]), key


def test_an_item_rated_twice_has_one_row_and_noise_once() -> None:
    of = rated(world([[3, 5, 3, 3]] * 50, items=8))
    case = BY_NAME["fedmf"]
    noise = minus(
        released(case, of, rule(1.0, 2.0)), released(case, of, rule(1.0, 0.0))
    )["items"]

    for item in range(8):
        each = noise[:, item]
        assert is_standard(each.std().item() / 2.0, each.numel()), item
    assert lay([[3, 5, 3, 3]]).item.tolist() == [3, 5, 3, 3]
    assert len(cohort_of(of, torch.tensor([0])).item) == 4


def test_fcf_and_the_others_share_one_way_to_noise_whole_tables() -> None:
    """The local SGD family's own tests are beside DP-SGD; this is the common bound."""
    case = Case("fcf", FCF(width=4, learning_rate=RATE), by_mean)
    told = released(case, WORLD, rule(1e-3))

    assert 0 < length(told, 0) <= 6e-3 * (1 + 1e-3)
