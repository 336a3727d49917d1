"""Sums of rank-one uploads come apart again."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from privfed.attacks.reading.unmix import unmix


def planted(
    seed: int, clients: int, width: int = 24, items: int = 80, share: float = 0.2
) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors (clients, width), factors (clients, items), and which are not zero."""
    rng = Generator().manual_seed(seed)
    vector = torch.randn(clients, width, generator=rng).double()
    real = torch.rand(clients, items, generator=rng) < share
    size = 0.2 + torch.rand(clients, items, generator=rng).double()
    sign = torch.randint(2, (clients, items), generator=rng) * 2 - 1
    return vector, size * sign * real, real


@given(seed=st.integers(0, 1000), clients=st.integers(2, 8))
def test_a_planted_sum_comes_apart_exactly(seed: int, clients: int) -> None:
    vector, factor, real = planted(seed, clients)

    found = unmix(factor.T @ vector, real.sum(0), clients)

    # Who owns which line is not known: each line is some client's.
    whose = (found.axis @ torch.nn.functional.normalize(vector).T).abs().argmax(1)
    assert len(torch.unique(whose)) == len(whose)
    expected = factor[whose[found.line], found.row]
    length = found.along.abs() / vector[whose[found.line]].norm(dim=1)
    torch.testing.assert_close(length, expected.abs())
    lone = (real.sum(0) == 1) & real[whose].any(0)
    assert torch.isin(lone.nonzero()[:, 0], found.row).all()
    if len(whose) == clients:
        assert len(found.row) == int(real.sum())


def test_the_sides_of_a_line_are_the_signs() -> None:
    vector, factor, real = planted(3, 5)
    found = unmix(factor.T @ vector, real.sum(0), 5)
    whose = (found.axis @ torch.nn.functional.normalize(vector).T).abs().argmax(1)
    truth = factor[whose[found.line], found.row].sign()
    for line in range(len(whose)):
        mine = found.line == line
        same = found.along[mine].sign() == truth[mine]
        assert same.all() or not same.any()


def test_one_client_is_a_single_line_however_bent() -> None:
    value = torch.randn(30, 8, generator=Generator().manual_seed(1))
    found = unmix(value, torch.ones(30, dtype=torch.int64), 1)
    top = torch.linalg.svd(value.double(), full_matrices=False)[2][0]
    torch.testing.assert_close(found.along.abs(), (value.double() @ top).abs())


@pytest.mark.parametrize("senders", [1, 2, 5])
def test_noise_has_no_lines(senders: int) -> None:
    value = torch.randn(500, 16, generator=Generator().manual_seed(1))
    found = unmix(value, torch.full((500,), senders), 64)
    assert len(found.axis) == len(found.row) == 0


def test_a_sum_of_nothing_tells_nothing() -> None:
    found = unmix(torch.zeros(9, 4), torch.zeros(9, dtype=torch.int64), 3)
    assert len(found.axis) == len(found.row) == 0


def test_rows_of_clients_without_a_line_are_left_alone() -> None:
    """Of two clients one has a single row of its own: the shared rows stay whole."""
    rng = Generator().manual_seed(2)
    vector = torch.randn(2, 12, generator=rng).double()
    real = torch.zeros(2, 20, dtype=torch.bool)
    real[0, :12], real[1, 6:13] = True, True
    value = real.double().T @ vector
    found = unmix(value, real.sum(0), 2)
    assert len(found.axis) == 1
    assert sorted(found.row.tolist()) == list(range(6))
