"""DP-SGD clips each interaction's whole gradient and noises every number."""

from dataclasses import replace
from math import prod, sqrt

import pytest
import torch
from torch import Tensor

from privfed.devices.dpsgd import InteractionDP, NoiseSource, clipped, norms, poisson
from privfed.devices.gradients import Local, step
from privfed.interfaces import Round, State, Trained
from privfed.methods.backbone import Backbone
from privfed.methods.fcf import FCF
from privfed.methods.fedavg import FedAvg
from privfed.methods.fedmr import FedMR
from privfed.methods.fedncf import FedNCF
from privfed.methods.fedrap import FedRAP
from privfed.methods.local_sgd import LocalSGD
from privfed.methods.pfedrec import PFedRec
from privfed.methods.router import dropout_mask
from privfed.seeds import Seeds
from tests.devices.steps import ROUND, SEEDS, local_of, states_of
from tests.methods import twin
from tests.worlds import everyone, shards, uneven, world

WORLD = uneven((3, 0, 6, 1), items=9)  # so few items that records share rows
METHODS: list[LocalSGD] = [
    one.private_training()
    for one in (
        FedAvg(width=4, negatives=3),
        FCF(width=4, negatives=3),
        FedNCF(width=8, negatives=3),
        PFedRec(width=4, negatives=3),
        FedRAP(width=4, negatives=3),
        FedMR(width=4, id_width=5, negatives=3),
        FedMR(width=4, id_width=5, negatives=3, backbone="fedrap", fusion="gate"),
        FedMR(width=8, id_width=5, negatives=3, backbone="fedncf"),
        FedMR(width=4, id_width=5, negatives=3, modalities="image"),
    )
]


def ids(method: LocalSGD) -> str:
    if isinstance(method, FedMR):
        return f"fedmr-{method.backbone}-{method.fusion}-{method.modalities}"
    return type(method).__name__.lower()


def records(method: LocalSGD, client: int) -> list[dict[str, Tensor]]:
    """Gradient of each interaction's mean loss by autograd, in double precision."""
    model, private = states_of(method, WORLD)
    _, samples = local_of(method, WORLD)
    p = twin.params_of(model, private, client)
    found = []
    for k in range(int(samples.real[client].sum())):
        slot = samples.slot[client, k]
        item = samples.item[client][slot]
        label = torch.zeros(len(slot), dtype=torch.float64)
        label[0] = 1.0
        keep = None
        if isinstance(method, FedMR):
            stream = ROUND.stream.of("dropout", 0)
            every = torch.arange(samples.slot[0].numel())[None]
            mask = dropout_mask(stream, torch.tensor([client]), every, method.width)
            keep = mask[0, k * len(slot) : (k + 1) * len(slot)]
        value = twin.loss(method, p, WORLD, (item, label, keep), ROUND.number)
        grads = torch.autograd.grad(value, list(p.values()), materialize_grads=True)
        found.append(dict(zip(p, grads, strict=True)))
    return found


def whole_norm(record: dict[str, Tensor]) -> float:
    return sqrt(sum(float(g.square().sum()) for g in record.values()))


@pytest.mark.parametrize("method", METHODS, ids=ids)
def test_ghost_norms_equal_brute_force(method: LocalSGD) -> None:
    local, samples = local_of(method, WORLD)
    batch = poisson(samples, 1.0, SEEDS("poisson"), 0)
    _, grads = method.backward(local, batch, everyone(WORLD), ROUND)
    assert batch.slot is not None

    found = norms(grads, batch.slot, samples.slot.shape[2])

    for client in range(4):
        expected = [whole_norm(r) for r in records(method, client)]
        assert found[client][: len(expected)].tolist() == pytest.approx(
            expected, rel=1e-4
        )
        assert not found[client][len(expected) :].any()


@pytest.mark.parametrize("method", METHODS, ids=ids)
def test_a_clipped_step_is_the_sum_of_clipped_records(method: LocalSGD) -> None:
    local, samples = local_of(method, WORLD)
    batch = poisson(samples, 1.0, SEEDS("poisson"), 0)
    _, grads = method.backward(local, batch, everyone(WORLD), ROUND)
    assert batch.slot is not None
    every = [records(method, c) for c in range(4)]
    clip = sorted(whole_norm(r) for one in every for r in one)[5]  # some, not all
    group = samples.slot.shape[2]

    kept = clipped(grads, batch.slot, group, clip)
    after = Local(
        {n: v.clone() for n, v in local.rows.items()},
        {n: v.clone() for n, v in local.dense.items()},
    )
    rates = {n: 1.0 for phase in method.phases(WORLD.shape, 0) for n in phase}
    step(after, batch, kept, rates)

    assert (norms(kept, batch.slot, group) <= clip * (1 + 1e-4)).all()
    for client, ones in enumerate(every):
        factors = [min(1.0, clip / whole_norm(r)) for r in ones]
        rows = samples.rows[client]
        for name in [*local.rows, *local.dense]:
            total = sum(
                (f * r[name] for f, r in zip(factors, ones, strict=True)),
                torch.zeros((), dtype=torch.float64),
            )
            if name in local.rows:
                moved = (local.rows[name] - after.rows[name])[client][rows]
                total = total[samples.item[client][rows]] if total.ndim else moved * 0
            else:
                moved = (local.dense[name] - after.dense[name])[client]
                total = total.expand_as(moved)
            torch.testing.assert_close(
                moved.double(), total.double(), rtol=1e-3, atol=1e-5
            )


def test_clipping_leaves_small_gradients_alone() -> None:
    method = METHODS[0]
    local, samples = local_of(method, WORLD)
    batch = poisson(samples, 1.0, SEEDS("poisson"), 0)
    _, grads = method.backward(local, batch, everyone(WORLD), ROUND)
    assert batch.slot is not None

    kept = clipped(grads, batch.slot, 4, 1e6)

    assert torch.equal(kept.rows["items"].coef, grads.rows["items"].coef)
    assert torch.equal(kept.layers["head"].delta, grads.layers["head"].delta)


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0])
def test_poisson_takes_each_interaction_whole_at_its_rate(rate: float) -> None:
    of = uneven((30,) * 60)
    method = METHODS[0]
    _, samples = local_of(method, of)

    taken = [
        poisson(samples, rate, SEEDS("poisson"), n).weight.view(60, -1, 4) > 0
        for n in range(10)
    ]

    for one in taken:
        assert (one.all(2) == one.any(2)).all()  # a record comes with its negatives
        assert not one[:, 30:].any()  # and padding never
    hits = torch.stack(taken)[:, :, :30, 0].double()
    spread = sqrt(rate * (1 - rate) / hits.numel())
    assert abs(hits.mean().item() - rate) <= 4 * spread
    if rate < 1:  # independent over steps and records
        together = (hits[0] * hits[1]).mean().item()
        assert abs(together - rate**2) < 5 * sqrt(rate**2 / hits[0].numel())
        sizes = hits.sum(2)
        assert sizes.var().item() == pytest.approx(30 * rate * (1 - rate), rel=0.25)


@pytest.mark.parametrize("method", METHODS, ids=ids)
def test_without_noise_or_clipping_it_is_one_plain_step(
    method: Backbone | FedMR,
) -> None:
    """The neutral setting: rate 1, no noise, a clip that never bites."""
    method = replace(method, epochs=1, batch=10_000, learning_rate=0.05)
    plain_rate = isinstance(twin.core(method), FedAvg)
    # DP has one rate for all parts, so compare where training has one too
    method = replace(method, item_rate=1.0 if plain_rate else 1 / 12)
    if isinstance(method, FedMR):
        method = replace(method, dropout=False)  # its masks follow the layout
    if isinstance(twin.core(method), PFedRec):
        return  # trains in turns without DP, jointly with it
    of = uneven((5, 5, 5), items=12)
    model, private = states_of(method, of)
    rule = InteractionDP(1e9, 0.0, 1.0, 1, expected=5)

    plain = method.train(model, private, everyone(of), ROUND)
    noised = method.train(model, private, everyone(of), replace(ROUND, privacy=rule))

    for name, rows in {**plain.uploads.rows, **plain.private_rows}.items():
        other = {**noised.uploads.rows, **noised.private_rows}[name]
        assert len(other.item) == 36
        width = rows.value.shape[1]
        whole = torch.zeros(3, 12, width)
        if name in plain.private_rows:
            whole = private[name].clone()
        whole[rows.sender, rows.item] = rows.value
        torch.testing.assert_close(
            other.value.view(3, 12, width), whole, rtol=1e-4, atol=1e-5
        )
    for name, value in {**plain.uploads.dense, **plain.private}.items():
        other_value = {**noised.uploads.dense, **noised.private}[name]
        torch.testing.assert_close(other_value, value, rtol=1e-4, atol=1e-5)


def is_standard(ratio: float, count: int) -> bool:
    """Whether a measured over a stated deviation is 1 within five of its errors."""
    return abs(ratio - 1) < 5 / sqrt(2 * count)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(
    "method",
    [
        FedAvg(width=8, learning_rate=0.2),
        FedRAP(width=8, learning_rate=0.2),
        FedNCF(width=8, learning_rate=0.2),
        PFedRec(width=8, learning_rate=0.2),
        FedMR(width=8, id_width=8, learning_rate=0.2),
    ],
    ids=ids,
)
def test_noise_has_the_stated_scale_on_every_number(
    method: LocalSGD, steps: int
) -> None:
    """A client without data sends nothing but noise: its scale can be measured."""
    method = method.private_training()
    of = world([[]] * 40, items=64, features={"image": torch.ones(64, 8)})
    model, private = method.init(of.shape, SEEDS("init"))
    rule = InteractionDP(2.0, 3.0, 0.5, steps, expected=10)
    result = method.train(model, private, everyone(of), replace(ROUND, privacy=rule))

    phases = method.phases(of.shape, ROUND.number)
    least = min(rate for one in phases for rate in one.values())
    for name, value in noise_of(result, private).items():
        stated = 2.0 * 3.0 / 10 * least * sqrt(steps)
        ratio = value.std().item() / stated
        assert is_standard(ratio, value.numel()), name
        if value.numel() > 2000:
            assert not is_standard(ratio * 2 / 3, value.numel())
            assert not is_standard(ratio * 3 / 2, value.numel())


def noise_of(result: Trained, private: State) -> dict[str, Tensor]:
    found = {n: r.value for n, r in result.uploads.rows.items()}
    found |= {n: r.value for n, r in result.private_rows.items()}
    found |= dict(result.uploads.dense)
    return found | {n: v - private[n] for n, v in result.private.items()}


def test_noise_on_touched_rows_has_the_same_scale() -> None:
    method = FedAvg(width=8).private_training()
    of = uneven((20,) * 40)
    model, private = method.init(of.shape, SEEDS("init"))
    loud, quiet = (
        method.train(
            model,
            private,
            everyone(of),
            replace(ROUND, privacy=InteractionDP(1.0, noise, 1.0, 1, expected=4)),
        ).uploads
        for noise in (2.0, 0.0)
    )
    _, samples = local_of(method, of)
    touched = torch.zeros(40, 60, dtype=torch.bool)
    sender, at = samples.rows.nonzero(as_tuple=True)
    touched[sender, samples.item[sender, at]] = True
    noise = (loud.rows["items"].value - quiet.rows["items"].value).view(40, 60, 8)

    assert touched.any()
    assert not touched.all()
    for mask in (touched, ~touched):
        drawn = noise[mask]
        assert is_standard(drawn.std().item() / (1.0 * 2.0 / 4 * 0.1), drawn.numel())
    assert quiet.rows["items"].value.view(40, 60, 8)[~touched].abs().max() == 0


def test_noise_is_independent_over_clients_steps_tensors_and_rounds() -> None:
    clients = torch.arange(3)
    like = torch.empty(3, 4000)
    draws = [
        NoiseSource(stream, clients, number)(what, like)
        for stream in (SEEDS("dp", 0), SEEDS("dp", 1))
        for number in (0, 1)
        for what in ("a", "b")
    ]
    flat = torch.cat(draws)  # (24, 4000)
    correlation = torch.corrcoef(flat) - torch.eye(len(flat))

    assert correlation.abs().max() < 6 / sqrt(4000)


def test_noise_depends_on_the_client_alone() -> None:
    whole = NoiseSource(SEEDS("dp"), torch.arange(5), 1)("x", torch.empty(5, 3, 2))
    alone = NoiseSource(SEEDS("dp"), torch.tensor([3]), 1)("x", torch.empty(1, 3, 2))
    assert torch.equal(whole[3:4], alone)


def test_ragged_noise_is_each_clients_own() -> None:
    source = NoiseSource(SEEDS("dp"), torch.arange(3), 0)
    drawn = source.ragged("x", torch.tensor([2, 0, 3]), torch.empty(5, 4))
    alone = NoiseSource(SEEDS("dp"), torch.tensor([2]), 0)

    assert torch.equal(
        drawn[2:], alone.ragged("x", torch.tensor([3]), torch.empty(3, 4))
    )
    assert not torch.equal(drawn[:2], drawn[2:4])


def test_an_upload_under_dp_shows_neither_support_nor_size() -> None:
    method = FedAvg(width=4).private_training()
    of = uneven((3, 0, 9))
    model, private = method.init(of.shape, SEEDS("init"))
    rule = InteractionDP(1.0, 1.0, 0.5, 2, expected=5)

    up = method.train(
        model, private, everyone(of), replace(ROUND, privacy=rule)
    ).uploads

    assert up.weight is None
    rows = up.rows["items"]
    assert rows.sender.tolist() == [c for c in range(3) for _ in range(60)]
    assert rows.item.tolist() == list(range(60)) * 3
    assert rows.value.all(1).all()
    assert len(set(up.bytes_up(of.shape).tolist())) == 1


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("method", [METHODS[0], METHODS[4], METHODS[5]], ids=ids)
def test_shards_do_not_change_a_bit_under_dp(method: LocalSGD, size: int) -> None:
    of = uneven((13, 16, 14, 13, 16, 15, 14, 13))  # one bucket
    method = replace(method, width=8)
    if isinstance(method, FedMR):
        method = replace(method, id_width=8)
    model, private = states_of(method, of)
    now = Round(
        2,
        Seeds(1)("train"),
        Seeds(1)("once"),
        InteractionDP(0.5, 1.0, 0.5, 2, expected=6),
    )

    whole = method.train(model, private, everyone(of), now)
    parts = [method.train(model, private, cohort, now) for cohort in shards(of, size)]

    for name, value in {**whole.uploads.dense, **whole.private}.items():
        found = torch.cat([{**p.uploads.dense, **p.private}[name] for p in parts])
        assert torch.equal(found, value), name
    for name, rows in {**whole.uploads.rows, **whole.private_rows}.items():
        found = torch.cat(
            [{**p.uploads.rows, **p.private_rows}[name].value for p in parts]
        )
        assert found.numel() == prod(rows.value.shape)
        assert torch.equal(found, rows.value), name
