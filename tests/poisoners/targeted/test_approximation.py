"""Users' vectors from few public interactions, against autograd and plain loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from privfed.poisoners.targeted.approximation import Fit, Known, Pool, first_guess
from privfed.seeds import Stream
from tests.worlds import lay

ITEMS, WIDTH = 12, 4
LISTS = [[3, 1], [], [7], [0, 11, 5], [2], list(range(1, 12))]
STREAM = Stream(5)


def known(lists: list[list[int]] = LISTS) -> Known:
    return Known.of(lay(lists), len(lists), ITEMS)


def table(items: int = ITEMS, seed: int = 0) -> Tensor:
    return torch.randn(items, WIDTH, generator=Generator().manual_seed(seed))


@given(st.lists(st.sets(st.integers(0, ITEMS - 1)), min_size=1), st.integers(0, 99))
def test_an_item_is_drawn_from_all_that_its_user_is_not_known_for(
    sets: list[set[int]], seed: int
) -> None:
    pool, stream = Pool.of(known([[*one] for one in sets])), Stream(seed)

    found = pool.others(stream)

    bits = stream.bits(pool.owner, pool.item).tolist()
    for user, bit, item in zip(pool.owner.tolist(), bits, found.tolist(), strict=True):
        free = [i for i in range(ITEMS) if i not in sets[user]]
        assert item == free[bit % len(free)]
    pairs = {(u, i) for u, one in enumerate(sets) for i in one if len(one) < ITEMS}
    assert {*zip(pool.owner.tolist(), pool.item.tolist(), strict=True)} == pairs


@pytest.mark.parametrize("batch", [2, 100])
def test_passes_are_those_of_pytorchs_adam_on_the_summed_loss(batch: int) -> None:
    pool = Pool.of(known())
    memory = first_guess(len(LISTS), WIDTH, 0.1, STREAM)
    twin = memory["users"].clone().requires_grad_()
    twin.grad, adam = torch.zeros_like(twin), torch.optim.Adam([twin], lr=0.02)

    for number in range(3):  # Adam's memory outlives a pass
        rows, draws = table(seed=number), STREAM.of("pass", number)
        memory = Fit(0.02, batch).after(memory, pool, rows, draws)
        others = pool.others(draws.of("others"))
        everyone = torch.arange(len(LISTS))
        key = draws.of("batches").bits(everyone, torch.zeros_like(everyone))
        for users in torch.split(key.argsort(), batch):
            loss = torch.zeros(())
            for k, user in enumerate(pool.owner.tolist()):
                if user in users.tolist():
                    apart = rows[pool.item[k]] - rows[others[k]]
                    loss = loss - logsigmoid(twin[user] @ apart)
            adam.zero_grad(set_to_none=False)
            if loss.requires_grad:
                (twin.grad,) = torch.autograd.grad(loss, twin)
            adam.step()

    torch.testing.assert_close(memory["users"], twin.detach(), rtol=1e-4, atol=1e-6)


def test_a_pass_leaves_what_it_was_given_as_it_is() -> None:
    memory = first_guess(len(LISTS), WIDTH, 0.1, STREAM)
    before = {name: value.clone() for name, value in memory.items()}

    Fit(0.01, 3).after(memory, Pool.of(known()), table(), STREAM)

    assert all(torch.equal(value, memory[name]) for name, value in before.items())


def test_a_fitted_user_prefers_what_it_is_known_for() -> None:
    memory, rows = first_guess(len(LISTS), WIDTH, 0.01, STREAM), table()
    for number in range(200):
        draws = STREAM.of("pass", number)
        memory = Fit(0.05, 256).after(memory, Pool.of(known()), rows, draws)
    scores = memory["users"] @ rows.T
    assert int(scores[2].argmax()) == 7
    assert int(scores[4].argmax()) == 2


def test_a_user_known_for_everything_is_left_out() -> None:
    pool = Pool.of(known([[*range(ITEMS)], [4]]))
    assert pool.owner.tolist() == [1]


def test_repeated_interactions_count_once() -> None:
    assert known([[3, 3, 3]]).item.tolist() == [3]


def test_malicious_clients_are_no_users() -> None:
    some = Known.of(lay([[1], [2], [3]]), 2, ITEMS)
    assert some.owner.tolist() == [0, 1]
    assert some.has(torch.tensor([0, 0, 1]), torch.tensor([1, 2, 2])).tolist() == [
        True,
        False,
        True,
    ]
