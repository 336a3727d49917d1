"""Regula's terms against autograd on the loss of the released client."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, kl_div, log_softmax, softmax

from privfed.channels.plain import Plain
from privfed.data.splits import leave_one_out
from privfed.data.worlds import demo
from privfed.defenses.regula import Pull, Regula
from privfed.devices.penalty import Own
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import State, Turn
from privfed.messages import Total
from privfed.methods.bpr import BPR
from privfed.methods.fcf import FCF
from privfed.rounds import Outcome, Setup, run
from tests.defenses.uploads import SHAPE, TURN

S, WIDTH = 4, 6


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def released(
    pop: Tensor, rows: Tensor, user: Tensor, unpop: Tensor, mu: tuple[float, float]
) -> Tensor:
    """client.py of the released code, lines 167 to 171: what it adds to the loss."""
    s = len(pop)
    weighted = torch.arange(s, 0, -1).double() ** 2 / sum(
        r * r for r in range(1, s + 1)
    )
    near = cosine_similarity(pop[:, None], rows[unpop][None], dim=2).mean(1)
    apart = kl_div(
        log_softmax(pop, 1), softmax(user[None], 1).expand(s, -1), reduction="none"
    )
    return -mu[0] * (weighted * near).sum() - mu[1] * (weighted * apart.mean(1)).sum()


@pytest.mark.parametrize("mu", [(1.0, 1.0), (0.3, 0.0), (0.0, 2.0)])
def test_both_gradients_are_those_of_the_released_loss(mu: tuple[float, float]) -> None:
    """Samples repeat items; here a row stands for all samples that use it."""
    item = torch.tensor([[3, 8, 9, 20, 31, 0], [1, 2, 8, 40, 0, 0]])
    count = torch.tensor([[2, 1, 4, 1, 3, 0], [5, 2, 1, 1, 0, 0]]).float()
    rows, user, pop = normal(2, 6, WIDTH), normal(2, WIDTH, seed=1), normal(S, WIDTH)
    popular = torch.tensor([8, 40, 7, 0])
    term = Pull(popular, {"items": pop}, *mu)
    own = Own("items", rows, rows, item, count, user)

    by_row, by_user = term.rows(own), term.user(own)

    for client in range(2):
        v = rows[client].double().requires_grad_()
        u = user[client].double().requires_grad_()
        samples = torch.arange(6).repeat_interleave(count[client].long())
        unpop = samples[~torch.isin(item[client][samples], popular)]
        loss = released(pop.double(), v, u, unpop, mu)
        grads = torch.autograd.grad(loss, [v, u], materialize_grads=True)
        for found, expected in zip((by_row, by_user), grads, strict=True):
            mine = torch.zeros_like(expected) if found is None else found[client]
            torch.testing.assert_close(mine.double(), expected, rtol=1e-4, atol=1e-6)
    assert (by_row is None) == (mu[0] == 0)
    assert (by_user is None) == (mu[1] == 0)


def test_it_pulls_rows_toward_popular_ones_and_the_user_off_them() -> None:
    pop, rows, user = normal(1, WIDTH), normal(1, 5, WIDTH, seed=2), normal(1, WIDTH)
    own = Own("items", rows, rows, torch.arange(5)[None], torch.ones(1, 5), user)
    term = Pull(torch.tensor([30]), {"items": pop}, 1.0, 1.0)
    by_row, by_user = term.rows(own), term.user(own)
    assert by_row is not None

    closer = cosine_similarity(rows - 0.1 * by_row, pop[None], dim=2)

    assert (closer > cosine_similarity(rows, pop[None], dim=2)).all()
    assert by_user is not None

    def apart(u: Tensor) -> Tensor:
        return kl_div(log_softmax(pop, 1), softmax(u, 1), reduction="sum")

    shifted = user + normal(1, WIDTH, seed=3)  # at the popular row the gradient is 0
    by_user = term.user(replace(own, user=shifted))
    assert by_user is not None
    assert apart(shifted - 0.1 * by_user) > apart(shifted)


def total(*tables: str) -> Total:
    found = {name: torch.zeros(50, 2) for name in tables}
    return Total(found, {n: torch.zeros(50) for n in tables}, {}, 1.0, 1)


def test_popular_are_the_items_that_moved_most_between_two_models() -> None:
    defense = Regula(3)
    first: State = {"items": normal(50, 4), "mlp.weight": normal(3, 4)}
    move = torch.zeros(50, 4)
    move[[7, 30, 2, 11], 1] = torch.tensor([1.0, 5.0, 3.0, 0.5])
    second = {**first, "items": first["items"] + move}
    third = {**second, "items": second["items"] - 10}

    now = Turn(0, SHAPE, TURN.stream, defense.start(), first)
    assert defense.penalty(now) is None
    now = replace(
        now, number=1, memory=defense.learn(total("items"), now), model=second
    )
    mined = defense.penalty(now)
    memory = defense.learn(total("items"), now)
    now = replace(now, number=2, memory=memory, model=third)
    later = defense.penalty(now)

    assert isinstance(mined, Pull)
    assert isinstance(later, Pull)
    assert mined.popular.tolist() == later.popular.tolist() == [30, 2, 7]
    assert torch.equal(later.received["items"], third["items"][[30, 2, 7]])
    assert set(memory) == {"popular"}
    assert torch.equal(defense.learn(total("items"), now)["popular"], later.popular)


def test_changes_add_up_over_tables() -> None:
    first = {"a": torch.zeros(50, 2), "b": torch.zeros(50, 3)}
    second = {name: value.clone() for name, value in first.items()}
    second["a"][5], second["b"][9], second["b"][5] = 1.0, 1.2, 0.1
    now = Turn(0, SHAPE, TURN.stream, {}, first)
    now = replace(now, memory=Regula(2).learn(total("a", "b"), now), model=second)

    assert Regula(2).learn(total("a", "b"), now)["popular"].tolist() == [9, 5]


def outcome(method: BPR | FCF, *defenses: Regula, rounds: int = 4) -> Outcome:
    world = leave_one_out(demo(users=24, items=60))
    few = Protocol(negatives=20)
    return run(Setup(world, method, Plain(), defenses, protocol=few, rounds=rounds))


@pytest.mark.parametrize("method", [BPR(width=8), FCF(width=8, epochs=1)])
def test_a_run_is_plain_for_one_round_and_then_is_not(method: BPR | FCF) -> None:
    plain, guarded = outcome(method, rounds=1), outcome(method, Regula(), rounds=1)
    assert torch.equal(plain.state.model["items"], guarded.state.model["items"])

    plain, guarded = outcome(method, rounds=2), outcome(method, Regula(), rounds=2)
    assert not torch.equal(plain.state.model["items"], guarded.state.model["items"])


@pytest.mark.parametrize("method", [BPR(width=8), FCF(width=8, epochs=1)])
def test_no_weight_is_plain_training(method: BPR | FCF) -> None:
    off = Regula(item_weight=0.0, user_weight=0.0)
    plain, guarded = outcome(method), outcome(method, off)
    assert torch.equal(plain.state.model["items"], guarded.state.model["items"])


def test_unusable_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="popular must be at least 1"):
        Regula(0)
    with pytest.raises(ValueError, match="item_weight must be 0 or more"):
        Regula(item_weight=-1)
    with pytest.raises(ValueError, match="user_weight must be 0 or more"):
        Regula(user_weight=-1)
