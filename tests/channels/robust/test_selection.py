"""Krum's picks equal their slow twins, whatever groups are padded to."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from privfed.channels.robust.distances import between_vectors, within
from privfed.channels.robust.selection import (
    Counted,
    best_at_once,
    best_one_by_one,
)
from tests.channels.robust import twins

seeds = st.integers(0, 500)
ROOM = 14


def draw(seed: int, clients: int, coarse: bool = False) -> Tensor:
    rng = Generator().manual_seed(seed)
    if coarse:
        return torch.randint(-1, 2, (clients, 2), generator=rng).double()
    return torch.randn(clients, 5, generator=rng, dtype=torch.float64)


def padded(*groups: Tensor) -> tuple[Tensor, Tensor]:
    """Distances of several groups, padded to one room, and their sizes."""
    counts = torch.tensor([len(x) for x in groups])
    distance = torch.full((len(groups), ROOM, ROOM), 7.0, dtype=torch.float64)
    for k, x in enumerate(groups):
        distance[k, : len(x), : len(x)] = within(x[None])[0]
    return distance, counts


def counted(counts: Tensor, f: int, less: int, keep: int) -> Counted:
    near = (counts - f - less).clamp_min(1).minimum(counts - 1)
    return Counted(counts, near, torch.full_like(counts, keep).minimum(counts))


def positions(picked: Tensor) -> list[int]:
    found: list[int] = picked.nonzero()[:, 0].tolist()
    return found


@given(seed=seeds, clients=st.integers(2, 12), less=st.integers(0, 2), data=st.data())
def test_the_best_at_once_are_the_slow_ones(
    seed: int, clients: int, less: int, data: st.DataObject
) -> None:
    f = data.draw(st.integers(0, max(0, (clients - 3) // 2)))
    keep = data.draw(st.integers(1, clients))
    coarse = data.draw(st.booleans())
    x, other = draw(seed, clients, coarse), draw(seed + 1, ROOM)
    distance, counts = padded(other, x)

    picked = best_at_once(distance, counted(counts, f, less, keep))

    order = twins.krum(x.numpy(), f, less, True)
    assert positions(picked[1]) == sorted(order[:keep])
    assert int(picked[0].sum()) == min(keep, ROOM)


@given(seed=seeds, clients=st.integers(3, 12), less=st.integers(0, 2), data=st.data())
def test_the_best_one_by_one_are_the_slow_ones(
    seed: int, clients: int, less: int, data: st.DataObject
) -> None:
    f = data.draw(st.integers(0, (clients - 3) // 2))
    keep = max(1, clients - 2 * f)
    coarse = data.draw(st.booleans())
    x, other = draw(seed, clients, coarse), draw(seed + 1, ROOM)
    distance, counts = padded(other, x)

    picked = best_one_by_one(distance, counted(counts, f, less, keep))

    if f == 0:  # everybody is picked, in whatever order
        assert positions(picked[1]) == list(range(clients))
        return
    slow = twins.one_by_one(x.numpy(), f, less, True, keep)
    assert positions(picked[1]) == slow


def test_groups_are_picked_from_side_by_side() -> None:
    groups = [draw(k, clients) for k, clients in enumerate((14, 9, 5, 12, 3))]
    distance, counts = padded(*groups)
    f = torch.tensor([2, 1, 0, 2, 0])
    of = Counted(counts, (counts - f - 2).clamp_min(1), counts - 2 * f)

    once, each = best_at_once(distance, of), best_one_by_one(distance, of)

    for k, x in enumerate(groups):
        alone = Counted(*(v[k : k + 1] for v in (of.counts, of.near, of.keep)))
        one = within(x[None])
        assert torch.equal(once[k, : len(x)], best_at_once(one, alone)[0])
        assert torch.equal(each[k, : len(x)], best_one_by_one(one, alone)[0])
        assert not once[k, len(x) :].any()
        assert not each[k, len(x) :].any()


@pytest.mark.parametrize("pick", [best_at_once, best_one_by_one])
@pytest.mark.parametrize("value", [1e6, 1e30, torch.inf, torch.nan])
def test_far_uploads_are_not_picked(pick, value: float) -> None:  # type: ignore[no-untyped-def]
    x = draw(0, 11)
    x[[2, 5]] = value
    x[5] = -x[5]
    distance, counts = padded(x)

    picked = pick(distance, counted(counts, 2, 2, 7))[0]

    assert int(picked.sum()) == 7
    assert not picked[[2, 5]].any()


def test_ties_go_to_the_client_that_comes_first() -> None:
    distance, counts = padded(torch.zeros(6, 3))

    for pick in (best_at_once, best_one_by_one):
        assert positions(pick(distance, counted(counts, 1, 2, 2))[0]) == [0, 1]


@given(seed=seeds, clients=st.integers(1, 9))
def test_distances_are_the_slow_ones(seed: int, clients: int) -> None:
    x = draw(seed, clients) + 100

    slow = [[twins.distance(a, b, True) for b in x.numpy()] for a in x.numpy()]

    for found in (within(x[None])[0], between_vectors(x)):
        np.testing.assert_allclose(found, slow, atol=1e-8)
        assert torch.equal(found, found.T)
