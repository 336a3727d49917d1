"""federeco: all weights averaged, told as what each client changed of them."""

from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from privfed.attacks.items.sign_pc import SignPC
from privfed.attacks.items.support import Support
from privfed.channels.plain import Plain
from privfed.data.splits import leave_one_out
from privfed.data.world import World
from privfed.data.worlds import demo
from privfed.defenses.gaussian import Gaussian
from privfed.evaluation.protocol import Protocol
from privfed.guesses import Items
from privfed.interfaces import Round, State
from privfed.machine import Machine
from privfed.messages import Uploads, join
from privfed.methods.federeco import Federeco
from privfed.rounds import Setup, run
from privfed.sampling import Sampling
from privfed.seeds import Seeds
from tests.methods.neumf import Twin, drawn, trained
from tests.worlds import everyone, opening, shards, uneven, world

SEEDS = Seeds(5)
SMALL = Federeco(width=8, layers=(16, 8, 4), learning_rate=0.01, decay=0.3, batch=16)


def round_of(number: int) -> Round:
    return Round(number, SEEDS("train", number), SEEDS("once"))


def served(method: Federeco, of: World, model: State, number: int) -> State:
    """The model after one round of everybody."""
    channel = Plain()
    opened = channel.open(opening(of.shape))
    for cohort in shards(of, 3):
        up = method.train(model, {}, cohort, round_of(number)).uploads
        opened, _ = channel.send(opened, up)
    return method.apply(model, channel.close(opened).total)


def copies(method: Federeco, of: World, model: State, number: int) -> list[State]:
    """Every client's whole model after a round, trained by PyTorch."""
    twin = Twin(method.neural, of.shape.clients, of.shape.items).load(model)
    now = round_of(number)
    found: list[State] = []
    for client in range(of.shape.clients):
        negatives, shuffle = now.always.of("negatives"), now.stream.of("shuffle")
        batches = drawn(of, client, method.rule, negatives, shuffle)
        found.append(trained(twin, client, batches, method.rule)[0].state())
    return found


def first(method: Federeco, of: World) -> State:
    model, private = method.init(of.shape, SEEDS("init"))
    assert not private
    return {name: value.double() for name, value in model.items()}


@pytest.mark.parametrize(
    "method",
    [SMALL, replace(SMALL, optimizer="adam", decay=0.0), Federeco()],
    ids=["adamw", "adam", "defaults"],
)
def test_a_round_averages_whole_copies_of_the_model(method: Federeco) -> None:
    of = uneven()
    model = expected = first(method, of)
    for number in range(2):
        model = served(method, of, model, number)
        each = copies(method, of, expected, number)
        expected = {n: torch.stack([m[n] for m in each]).mean(0) for n in each[0]}

    for name, value in expected.items():
        torch.testing.assert_close(model[name], value, rtol=0, atol=1e-12)


def test_an_owners_row_is_copied_and_nobody_elses_moves() -> None:
    of = uneven()
    method = replace(SMALL, user_rows="owner")
    model = first(method, of)

    after = served(method, of, model, 0)

    each = copies(method, of, model, 0)
    for name in ("users_mf", "users_mlp"):
        own = torch.stack([each[c][name][c] for c in range(of.shape.clients)])
        torch.testing.assert_close(after[name], own, rtol=0, atol=1e-12)


def test_touched_mean_divides_by_the_clients_that_drew_an_item() -> None:
    of = uneven((3, 2, 4), 60)
    method = replace(SMALL, item_rows="touched_mean")
    model = first(method, of)
    rows = method.train(model, {}, everyone(of), round_of(0)).uploads.rows

    after = served(method, of, model, 0)

    each = copies(method, of, model, 0)
    drew = [set(rows["items_mf"].item[rows["items_mf"].sender == c]) for c in range(3)]
    drew = [{int(item) for item in items} for items in drew]
    for name in ("items_mf", "items_mlp"):
        for item in range(60):
            who = [c for c in range(3) if item in drew[c]]
            now = [each[c][name][item] for c in who] or [model[name][item]]
            expected = torch.stack(now).mean(0)
            torch.testing.assert_close(after[name][item], expected, rtol=0, atol=1e-12)
    assert any(not any(i in d for d in drew) for i in range(60))


def uploaded(method: Federeco, of: World, model: State) -> Uploads:
    parts = [method.train(model, {}, c, round_of(0)).uploads for c in shards(of, 3)]
    return join(parts)


def test_an_upload_is_the_size_of_the_whole_model() -> None:
    of, method = uneven(), Federeco()
    model, _ = method.init(of.shape, SEEDS("init"))
    whole = 4 * sum(value.numel() for value in model.values())

    assert set(uploaded(method, of, model).bytes_up(of.shape).tolist()) == {whole}
    assert method.bytes_down(model) == whole
    owner = replace(method, user_rows="owner")
    spared = (of.shape.clients - 1) * 48 * 4
    found = uploaded(owner, of, model).bytes_up(of.shape)
    assert set(found.tolist()) == {whole - spared}


def test_an_upload_tells_how_long_a_history_is() -> None:
    """The decay factor of untouched rows counts the steps, so the interactions."""
    of = uneven((3, 9, 17, 30, 30))
    up = uploaded(Federeco(), of, Federeco().init(of.shape, SEEDS("init"))[0])

    steps = up.rest["items_mf"].double().log() / torch.tensor(1 - 1e-5).double().log()
    batches = (of.train.counts[up.clients] * 5 / 64).ceil()
    assert steps.round().tolist() == (3 * batches).tolist()


@pytest.mark.parametrize("rows", ["once", "round"])
def test_negatives_are_drawn_once_or_every_round(
    rows: Literal["once", "round"],
) -> None:
    of = uneven((9, 9))
    method = replace(SMALL, negatives_resample=rows)
    model, _ = method.init(of.shape, SEEDS("init"))

    def items(number: int) -> Tensor:
        found = method.train(model, {}, everyone(of), round_of(number)).uploads
        return found.rows["items_mf"].item

    same = items(0).tolist() == items(1).tolist()
    assert same == (rows == "once")


def test_it_learns_who_takes_what() -> None:
    """Even clients take even items; those that one lacks come before odd ones."""
    kinds = [set(range(c % 2, 40, 2)) for c in range(8)]
    lacks = [{2 * c + c % 2, (2 * c + 20) % 40 + c % 2} for c in range(8)]
    of = world([sorted(k - m) for k, m in zip(kinds, lacks, strict=True)], 40)
    method = Federeco(learning_rate=0.02, user_rows="owner", std=0.1)
    model, _ = method.init(of.shape, SEEDS("init"))
    for number in range(30):
        model = served(method, of, model, number)

    scores = method.score(model, {}, everyone(of))

    for client, (kind, lacking) in enumerate(zip(kinds, lacks, strict=True)):
        other = sorted(set(range(40)) - kind)
        mine = scores[client, sorted(lacking)]
        assert mine.min() > scores[client, other].mean()


def small() -> World:
    return leave_one_out(demo(users=24, items=60))


def setup(method: Federeco, **changes: object) -> Setup:
    plain = Setup(
        small(),
        method,
        Plain(),
        attacks={"support": Support(), "sign_pc": SignPC()},
        sampling=Sampling("queue", 10),
        protocol=Protocol(every=2, negatives=20),
        rounds=4,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


DEFAULTS = Federeco(learning_rate=0.01)
VARIANTS = [
    DEFAULTS,
    replace(DEFAULTS, user_rows="owner", item_rows="touched_mean", batch=50),
    replace(DEFAULTS, optimizer="sgd", clip=None, negatives_resample="round"),
]


@pytest.mark.parametrize("method", VARIANTS, ids=["defaults", "owner", "sgd"])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_neither_shards_nor_memory_nor_workers_change_a_result(
    method: Federeco, noise: float
) -> None:
    asked = setup(method, defenses=(Gaussian(noise),))
    whole = run(asked, Machine(workers=1))

    for machine in (
        Machine(workers=2),
        Machine(workers=1, shard=1),
        Machine(workers=2, shard=3, memory=64 * 2**20),
    ):
        other = run(asked, machine)
        for name, value in whole.state.model.items():
            assert torch.equal(other.state.model[name], value), name
        assert torch.equal(
            other.state.marks["test"].value, whole.state.marks["test"].value
        )
        for attack, guess in whole.guesses.items():
            same = other.guesses[attack]
            assert isinstance(guess, Items)
            assert isinstance(same, Items)
            assert torch.equal(same.score, guess.score)


def test_everything_of_a_client_is_in_the_model() -> None:
    outcome = run(setup(DEFAULTS), Machine(workers=1))

    assert not outcome.state.private
    assert outcome.state.costs.uploads == 4 * 10


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"negatives": 0}, "negatives"),
        ({"width": 0}, "width"),
        ({"layers": (8,)}, "layers"),
        ({"clip": -1.0}, "clip"),
        ({"batch": 0}, "batch"),
        ({"optimizer": "adam"}, "adam has none"),
    ],
)
def test_an_unusable_setting_is_named(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Federeco(**changes)  # type: ignore[arg-type]
