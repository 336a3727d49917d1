"""Users' lists and the gradient that lifts targets into them, user by user."""

import pytest
import torch
from torch import Generator, Tensor
from torch.nn.functional import elu

from privfed.poisoners.targeted.approximation import Known
from privfed.poisoners.targeted.rivals import Aims
from tests.worlds import lay

USERS, ITEMS, WIDTH, SIZE = 150, 40, 4, 10  # users fill more than two chunks


def scene(targets: list[int], seed: int = 0) -> tuple[Known, Tensor, Tensor, Tensor]:
    rng = Generator().manual_seed(seed)
    lists = [torch.randperm(ITEMS, generator=rng)[: u % 5].tolist() for u in range(150)]
    lists[3] = [targets[0], 1]
    users = torch.randn(USERS, WIDTH, generator=rng)
    table = torch.randn(ITEMS, WIDTH, generator=rng)
    known = Known.of(lay(lists), USERS, ITEMS)
    return known, torch.tensor(targets), users, table


def shown(known: Known, targets: Tensor, user: int, scores: Tensor) -> list[int]:
    """One user's list, the best first, by a plain sort."""
    own = known.item[known.owner == user].tolist()
    free = [i for i in range(ITEMS) if i not in own and i not in targets.tolist()]
    return sorted(free, key=lambda item: -float(scores[item]))[:SIZE]


@pytest.mark.parametrize("targets", [[7], [7, 30, 2]])
@pytest.mark.parametrize("size", [1, 3, 10])
def test_a_rival_is_the_last_of_a_users_list(targets: list[int], size: int) -> None:
    """For a further target that its user is not known for, the one before it."""
    known, which, users, table = scene(targets)
    aims = Aims.of(known, which[:size], size)

    found = aims.rivals(users, table).tolist()

    for user in range(USERS):
        own = known.item[known.owner == user].tolist()
        left = shown(known, which[:size], user, table @ users[user])[:size]
        for target in which[:size].tolist():
            if target not in own:
                assert found.pop(0) == left.pop()
    assert not found


@pytest.mark.parametrize("targets", [[7], [7, 30, 2]])
def test_the_gradient_is_that_of_the_published_loss(targets: list[int]) -> None:
    """The first target against the tenth item, the next one against the ninth."""
    known, which, users, table = scene(targets)
    rows = table.clone().requires_grad_()
    loss = torch.zeros(())
    for user in range(USERS):
        own = known.item[known.owner == user].tolist()
        left = shown(known, which, user, table @ users[user])
        for target in which.tolist():
            if target not in own:
                loss = loss + elu(users[user] @ (rows[left.pop()] - rows[target]))
    (twin,) = torch.autograd.grad(loss, rows)

    slope = Aims.of(known, which, SIZE).slope(users, table)

    torch.testing.assert_close(slope, twin, rtol=1e-4, atol=1e-4)


def test_a_catalog_shorter_than_the_lists_is_shown_whole() -> None:
    known = Known.of(lay([[0], [1]]), 2, 4)
    aims = Aims.of(known, torch.tensor([2]), 10)
    users, table = torch.ones(2, 1), torch.tensor([[0.4], [0.3], [0.2], [0.1]])
    assert bool(aims.slope(users, table).isfinite().all())


def test_users_known_for_a_target_add_nothing() -> None:
    known = Known.of(lay([[2], [2]]), 2, 20)
    aims = Aims.of(known, torch.tensor([2]), 10)
    assert not aims.slope(torch.ones(2, 3), torch.ones(20, 3)).any()
