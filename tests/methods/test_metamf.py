"""MetaMF: gradients, generators and protocol against an obvious twin of the paper."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from privfed.attacks.items.support import Support
from privfed.channels.plain import Plain
from privfed.choices import choose
from privfed.data.cohort import Cohort, cohort_of, cohort_of_pairs
from privfed.data.splits import by_ratio
from privfed.data.world import Pairs, Shape, World
from privfed.data.worlds import demo
from privfed.defenses.gaussian import Gaussian
from privfed.devices.batches import bucket
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import Round, State, broadcast
from privfed.machine import Machine
from privfed.messages import Uploads, join
from privfed.methods.metamf import server
from privfed.methods.metamf.method import MetaMF
from privfed.methods.metamf.server import generate, item_rows
from privfed.methods.metamf.theta import (
    FIRST,
    HIDDEN,
    ITEMS,
    LOW,
    MEMORY,
    RISE,
    SECOND,
    USERS,
    Variant,
    theta,
)
from privfed.methods.outer import Touched, adam, clipped
from privfed.rounds import Outcome, Setup, run
from privfed.sampling import Sampling
from privfed.seeds import Seeds

SEEDS = Seeds(4)
ROUND = Round(2, SEEDS("train", 2), SEEDS("once"))
WORLD = by_ratio(demo(users=24, items=40), 0, task="rating")
VARIANTS: tuple[Variant, ...] = ("full", "si", "sm")
SMALL: dict[str, Any] = {
    "width": 8,
    "layer": 2,
    "low": 4,
    "collaborative": 12,
    "hidden": 16,
    "user_width": 8,
    "learning_rate": 0.01,
}


def method(variant: Variant = "full", **changes: Any) -> MetaMF:
    return MetaMF(variant=variant, **{**SMALL, **changes})


def begin(of: MetaMF, world: World = WORLD) -> State:
    """First values in float64, biases moved so that none is zero."""
    model, private = of.init(world.shape, SEEDS("init"))
    assert not private
    rng = torch.Generator().manual_seed(1)

    def moved(x: Tensor) -> Tensor:
        return x.double() + 0.1 * torch.randn(x.shape, generator=rng).double()

    return {name: moved(value) for name, value in model.items()}


def everyone(world: World = WORLD) -> Cohort:
    return cohort_of(world, world.eligible)


class Twin(nn.Module):
    """The paper's model as its text has it: whole tables, one client at a time."""

    def __init__(self, of: MetaMF, model: State) -> None:
        super().__init__()
        self.of = of
        self.theta = {n: v.clone().requires_grad_() for n, v in model.items()}

    def received(self, client: int) -> dict[str, Tensor]:
        """Phi_u: the whole item table and the network."""
        of, t = self.of, self.theta
        vector = t[USERS][client] @ t[MEMORY]
        hidden = torch.relu(t[f"{HIDDEN}.weight"] @ vector + t[f"{HIDDEN}.bias"])
        states = list(torch.split(hidden, of.hidden))
        if of.variant == "si":
            items = t[ITEMS]
        else:
            state = states.pop(0)
            low = t[f"{LOW}.weight"] @ state + t[f"{LOW}.bias"]
            rise = t[f"{RISE}.weight"] @ state + t[f"{RISE}.bias"]
            items = low @ rise.view(of.low, of.width)
        if of.variant == "sm":
            first, second = t[FIRST], t[SECOND]
        else:
            first, second = (
                t[f"{name}.weight"] @ state + t[f"{name}.bias"]
                for name, state in zip((FIRST, SECOND), states, strict=True)
            )
        cut = of.width * of.layer
        return {
            "items": items,
            "first.weight": first[:cut].view(of.layer, of.width),
            "first.bias": first[cut:],
            "second.weight": second[None, : of.layer],
            "second.bias": second[of.layer :],
        }

    def ratings(self, phi: dict[str, Tensor], item: Tensor) -> Tensor:
        x = phi["items"][item]
        hidden = torch.relu(x @ phi["first.weight"].T + phi["first.bias"])
        return (hidden @ phi["second.weight"].T + phi["second.bias"])[:, 0]

    def loss(self, cohort: Cohort) -> Tensor:
        """Mean squared error over all ratings of a cohort."""
        total = torch.zeros((), dtype=torch.float64)
        for position, client in enumerate(cohort.clients.tolist()):
            mine = cohort.sender == position
            found = self.ratings(self.received(client), cohort.item[mine])
            total = total + (found - cohort.label[mine]).square().sum()
        return total / len(cohort.item)


def upload(of: MetaMF, model: State, cohort: Cohort) -> Uploads:
    return of.train(model, {}, cohort, ROUND).uploads


def copied(model: State) -> State:
    return {name: value.clone() for name, value in model.items()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_upload_is_minus_the_gradient_of_the_clients_own_loss(
    variant: Variant,
) -> None:
    of, cohort = method(variant), everyone()
    model = begin(of)
    trained = of.train(model, {}, cohort, ROUND)
    rows, dense = trained.uploads.rows["items"], trained.uploads.dense
    twin = Twin(of, model)

    for position, client in enumerate(cohort.clients.tolist()):
        mine = cohort.sender == position
        phi = {n: v.detach().requires_grad_() for n, v in twin.received(client).items()}
        found = twin.ratings(phi, cohort.item[mine])
        loss = (found - cohort.label[mine]).square().mean()
        slopes = dict(zip(phi, torch.autograd.grad(loss, [*phi.values()]), strict=True))
        torch.testing.assert_close(trained.loss[position], loss.detach())
        table = torch.zeros_like(phi["items"])
        sent = rows.sender == position
        table[rows.item[sent]] = rows.value[sent]
        torch.testing.assert_close(table, -slopes["items"])
        assert rows.item[sent].tolist() == sorted(cohort.item[mine].tolist())
        for name, value in dense.items():
            torch.testing.assert_close(value[position], -slopes[name])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_round_is_one_step_of_adam_on_the_loss_of_all_ratings(
    variant: Variant,
) -> None:
    of, cohort = method(variant, decay=0.01, clip=0.5), everyone()
    model = begin(of)
    twin = Twin(of, model)
    tensors = [*twin.theta.values()]
    step = torch.optim.Adam(tensors, lr=of.learning_rate, weight_decay=of.decay)

    for _ in range(3):
        step.zero_grad()
        twin.loss(cohort).backward()  # type: ignore[no-untyped-call]
        assert float(nn.utils.clip_grad_norm_(tensors, of.clip)) > of.clip
        step.step()
        model = of.learn(model, upload(of, model, cohort), SEEDS("server"))

    for name, value in twin.theta.items():
        torch.testing.assert_close(model[name], value.detach(), rtol=1e-6, atol=1e-9)


def test_clients_count_the_same_where_they_are_averaged() -> None:
    of, cohort = method(average="clients", clip=1e9), everyone()
    model = begin(of)
    sent = upload(of, model, cohort)
    assert sent.weight is None
    twin = Twin(of, model)
    tensors = [*twin.theta.values()]
    step = torch.optim.Adam(tensors, lr=of.learning_rate, weight_decay=of.decay)
    parts = [
        twin.loss(cohort_of(WORLD, cohort.clients[k : k + 1]))
        for k in range(len(cohort.clients))
    ]
    torch.stack(parts).mean().backward()  # type: ignore[no-untyped-call]
    step.step()

    model = of.learn(model, sent, SEEDS("server"))

    for name, value in twin.theta.items():
        torch.testing.assert_close(model[name], value.detach(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_gathered_first_equal_those_of_the_whole_table(variant: Variant) -> None:
    of, clients = method(variant), WORLD.eligible[:5]
    model = begin(of)
    items = WORLD.shape.items
    sender = torch.arange(len(clients)).repeat_interleave(items)
    item = torch.arange(items).repeat(len(clients))
    sent = generate(model, of.sizes, clients)
    twin = Twin(of, model)

    rows = item_rows(model, of.sizes, sent, sender, item).view(len(clients), items, -1)
    pairs = Pairs(sender, item, torch.zeros(len(item)), torch.zeros(len(item), 0))
    found = of.predict(model, {}, cohort_of(WORLD, clients), pairs)

    for k, client in enumerate(clients.tolist()):
        phi = twin.received(client)
        torch.testing.assert_close(rows[k], phi["items"].detach())
        expected = twin.ratings(phi, torch.arange(items)).detach()
        torch.testing.assert_close(found[k * items :][:items], expected)


def test_pieces_of_the_gathered_generator_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of, cohort = method(), everyone()
    model = begin(of)
    sent = upload(of, model, cohort)
    whole = of.learn(copied(model), sent, SEEDS("server"))
    monkeypatch.setattr(server, "AT_ONCE", 3 * of.low * of.hidden)

    again = upload(of, model, cohort)
    pieces = of.learn(copied(model), again, SEEDS("server"))

    assert torch.equal(again.rows["items"].value, sent.rows["items"].value)
    for name, value in whole.items():
        torch.testing.assert_close(pieces[name], value, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("batch", [None, 5])
def test_the_server_reads_the_exact_ratings_off_an_upload(batch: int | None) -> None:
    """r = r^ - (|B| / 2) <g, J> / <J, J>, with J the slope of r^ by the item row."""
    of, cohort = method(batch=batch), everyone()
    model = begin(of)
    sent = upload(of, model, cohort)
    rows, twin, read = sent.rows["items"], Twin(of, model), 0

    for position, client in enumerate(cohort.clients.tolist()):
        mine = rows.sender == position
        item, gradient = rows.item[mine], -rows.value[mine]
        count = int((cohort.sender == position).sum())
        size = min(count, batch or count)
        phi = twin.received(client)
        predicted = twin.ratings(phi, item)
        (whole,) = torch.autograd.grad(predicted.sum(), [phi["items"]])
        slope = whole[item]
        length = slope.square().sum(1)
        seen = length > 0  # a dead hidden layer says nothing
        along = (gradient * slope).sum(1) / length
        rating = (predicted - size / 2 * along)[seen].detach()
        truth = dict(
            zip(
                cohort.item[cohort.sender == position].tolist(),
                cohort.label[cohort.sender == position].tolist(),
                strict=True,
            )
        )
        expected = [truth[i] for i in item[seen].tolist()]
        assert (rating - torch.tensor(expected).double()).abs().max() < 1e-10
        read += len(expected)
    assert read > 0.8 * len(rows.item)


@pytest.mark.parametrize("variant", VARIANTS)
def test_shards_do_not_change_a_bit(variant: Variant) -> None:
    of = method(variant, batch=7)
    model = {n: v.float() for n, v in begin(of).items()}
    order = WORLD.eligible[bucket(WORLD.train.counts[WORLD.eligible]).argsort()]
    whole = join([upload(of, model, cohort_of(WORLD, order))])

    for size in (1, 2, 5):
        parts = [cohort_of(WORLD, part) for part in torch.split(order, size)]
        found = join([upload(of, model, part) for part in parts])
        assert torch.equal(found.rows["items"].value, whole.rows["items"].value)
        assert found.weight is not None
        assert whole.weight is not None
        assert torch.equal(found.weight, whole.weight)
        for name, value in whole.dense.items():
            assert torch.equal(found.dense[name], value), name


PAPER: dict[str, Any] = {
    name: getattr(MetaMF(), name)
    for name in ("width", "layer", "low", "collaborative", "hidden", "user_width")
}


@pytest.mark.parametrize("sizes", [SMALL, PAPER], ids=["small", "paper"])
@pytest.mark.parametrize("sampling", ["all", "interactions"])
def test_neither_shards_nor_workers_change_a_result(
    sizes: dict[str, Any], sampling: Literal["all", "interactions"]
) -> None:
    asked = setup(MetaMF(**sizes), Sampling(sampling))
    whole = run(asked, Machine(workers=1))

    for machine in (
        Machine(workers=2),
        Machine(workers=1, shard=1),
        Machine(workers=2, shard=3, memory=2**28),
    ):
        same(run(asked, machine), whole)


def setup(of: MetaMF, sampling: Sampling, **changes: Any) -> Setup:
    plain = Setup(
        WORLD,
        of,
        Plain(),
        attacks={"support": Support()},
        sampling=sampling,
        protocol=Protocol(every=2),
        rounds=3,
    )
    return replace(plain, **changes)


def same(one: Outcome, other: Outcome) -> None:
    for name, value in one.state.model.items():
        assert torch.equal(value, other.state.model[name]), name
    assert torch.equal(one.state.marks["test"].value, other.state.marks["test"].value)
    assert one.state.costs.bytes_up == other.state.costs.bytes_up
    assert one.state.costs.bytes_down == other.state.costs.bytes_down


@pytest.mark.parametrize(
    ("users", "items", "numbers"),
    [
        (6_040, 3_706, 15_876_321),  # MovieLens 1M
        (2_113, 10_109, 42_028_569),  # Hetrec
        (2_509, 39_576, 162_973_809),  # Douban
        (7_375, 105_096, 432_023_601),  # Ciao
    ],
)
def test_parameters_are_as_many_as_in_the_released_code(
    users: int, items: int, numbers: int
) -> None:
    parts = theta(MetaMF().sizes, Shape(users, items))

    assert sum(part.numbers for part in parts.values()) == numbers


@pytest.mark.parametrize("variant", VARIANTS)
def test_first_values_have_the_sizes_and_spread_that_are_declared(
    variant: Variant,
) -> None:
    of, shape = MetaMF(variant=variant, hidden=256), Shape(400, 90)
    model, _ = of.init(shape, SEEDS("init"))

    for name, part in theta(of.sizes, shape).items():
        assert model[name].shape == part.size, name
        if not part.blocks:
            assert not model[name].any(), name
            continue
        for block, (_, std) in zip(
            torch.split(model[name], [rows for rows, _ in part.blocks]),
            part.blocks,
            strict=True,
        ):
            if block.numel() > 2000:
                assert 0.93 * std < float(block.std()) < 1.07 * std, name
            assert std > 0 or not block.any()


def test_devices_receive_their_model_and_nothing_that_makes_it() -> None:
    shape = Shape(30, 1000)
    for variant in VARIANTS:
        of = MetaMF(variant=variant)
        model, _ = of.init(shape, SEEDS("init"))

        assert not broadcast(model)
        assert of.bytes_down(model) == 4 * (1000 * 32 + 273)


def test_the_released_protocol_gives_every_rating_the_same_weight() -> None:
    of, cohort = method(), Sampling("interactions").cohort(0, WORLD, SEEDS)
    model = begin(of)
    sent = upload(of, model, cohort)

    assert sent.weight is not None
    assert float(sent.weight.sum()) == 64
    assert torch.equal(sent.weight, cohort.counts.double())
    assert len(sent.rows["items"].item) == 64


def test_a_batch_is_drawn_anew_from_a_clients_own_ratings() -> None:
    of, cohort = method(batch=3), everyone()
    model = begin(of)
    sent = upload(of, model, cohort).rows["items"]
    again = replace(ROUND, stream=SEEDS("train", 3))
    other = of.train(model, {}, cohort, again).uploads.rows["items"]

    counts = torch.bincount(sent.sender)
    assert torch.equal(counts, cohort.counts.clamp(max=3))
    owned = {*zip(cohort.sender.tolist(), cohort.item.tolist(), strict=True)}
    assert owned >= {*zip(sent.sender.tolist(), sent.item.tolist(), strict=True)}
    assert not torch.equal(sent.item, other.item)


def test_a_rating_given_twice_is_one_row() -> None:
    at = WORLD.train.offsets[int(WORLD.eligible[0])]
    cohort = cohort_of_pairs(WORLD, torch.stack([at, at, at + 1]))
    of = method()
    model = begin(of)
    rows = upload(of, model, cohort).rows["items"]
    twin = Twin(of, model)
    phi = twin.received(int(cohort.clients))
    found = twin.ratings(phi, cohort.item)
    loss = (found - cohort.label).square().mean()
    (slope,) = torch.autograd.grad(loss, [phi["items"]])

    assert len(rows.item) == 2
    torch.testing.assert_close(rows.value, -slope[rows.item])


@pytest.mark.parametrize("variant", VARIANTS)
def test_clients_without_ratings_teach_nothing(variant: Variant) -> None:
    of, cohort = method(variant, decay=0.0), everyone()
    none = cohort.sender[:0]
    nothing = replace(
        cohort,
        sender=none,
        item=none,
        label=cohort.label[:0],
        context=torch.zeros(0, 0),
    )
    model = begin(of)
    before = copied(model)

    trained = of.train(model, {}, nothing, ROUND)
    after = of.learn(model, trained.uploads, SEEDS("server"))

    assert not trained.loss.any()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_training_leaves_the_model_as_it_was() -> None:
    of = method()
    model = begin(of)
    before = copied(model)

    upload(of, model, everyone())

    assert all(torch.equal(model[name], value) for name, value in before.items())


@pytest.mark.parametrize("rows", ["all", "touched"])
def test_noised_uploads_are_learned_from(rows: Literal["all", "touched"]) -> None:
    asked = setup(method(), Sampling("all"))
    noised = replace(asked, defenses=(Gaussian(variance=1e-6, rows=rows),))
    plain, found = run(asked), run(noised)

    assert not torch.equal(plain.state.model[MEMORY], found.state.model[MEMORY])
    assert found.state.log[-1]["loss"] < 1.5 * plain.state.log[-1]["loss"]


@pytest.mark.parametrize("name", ["metamf", "metamf_si", "metamf_sm"])
def test_the_catalogs_settings_learn_more_than_a_users_mean(name: str) -> None:
    world, of = by_ratio(demo(), 0, task="rating"), choose("method", name).part
    outcome = run(setup(of, Sampling("all"), world=world, rounds=60, attacks={}))
    error = outcome.task.scores(outcome.state.best_test)["mae"].mean()

    assert error < float(outcome.task.references()["user mean"].value.abs().mean())


@dataclass(frozen=True)
class Wrong:
    setting: str
    value: Any
    says: str


@pytest.mark.parametrize(
    "wrong",
    [
        Wrong("width", 6, "width must be a multiple of 4, got 6"),
        Wrong("hidden", 0, "hidden must be positive"),
        Wrong("layer", 0, "layer must be positive"),
        Wrong("learning_rate", 0.0, "learning_rate must be positive"),
        Wrong("learning_rate", float("nan"), "learning_rate must be positive"),
        Wrong("decay", -1.0, "decay must be 0 or more"),
        Wrong("clip", 0.0, "clip must be positive"),
        Wrong("batch", 0, "batch must be at least 1, got 0"),
    ],
    ids=lambda wrong: wrong.setting,
)
def test_a_setting_that_cannot_work_is_refused_by_name(wrong: Wrong) -> None:
    with pytest.raises(ValueError, match=wrong.says):
        MetaMF(**{wrong.setting: wrong.value})


def test_a_table_of_which_few_rows_are_touched_steps_whole() -> None:
    """Piece by piece, it is torch's Adam on the gradient written out."""
    rng = torch.Generator().manual_seed(0)
    table = torch.randn(2050, 512, generator=rng)
    row = torch.tensor([0, 3, 1023, 1024, 2049])
    leaf = table.clone().requires_grad_()
    step = torch.optim.Adam([leaf], lr=0.1, weight_decay=0.01)
    model: State = {"server.table": table.clone()}

    for _ in range(3):
        value = torch.randn(len(row), 512, generator=rng)
        leaf.grad = torch.zeros_like(table).index_copy_(0, row, value)
        step.step()
        model = adam(model, {"server.table": Touched(row, value)}, 0.1, 0.01)

    torch.testing.assert_close(model["server.table"], leaf.detach())


@pytest.mark.parametrize("most", [0.5, 1e6])
def test_clipping_counts_touched_rows_with_the_rest(most: float) -> None:
    whole, value = torch.full((3, 2), 2.0), torch.full((2, 4), 3.0)
    touched = Touched(torch.tensor([1, 5]), value)
    norm = float((whole.square().sum() + value.square().sum()).sqrt())

    found = clipped({"a": whole, "b": touched}, most)
    one, other = found["a"], found["b"]

    assert isinstance(one, Tensor)
    assert isinstance(other, Touched)
    factor = min(1.0, most / norm)
    torch.testing.assert_close(one, whole * factor)
    torch.testing.assert_close(other.value, value * factor)
