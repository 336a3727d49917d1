"""IMIA's own defense: item rows held near what was received."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from privfed.channels.plain import Plain
from privfed.data.splits import leave_one_out
from privfed.data.worlds import demo
from privfed.defenses.imia_regularizer import Anchor, ImiaRegularizer
from privfed.devices.penalty import Own
from privfed.errors import SettingsError
from privfed.evaluation.protocol import Protocol
from privfed.methods.bpr import BPR
from privfed.rounds import Setup, run
from tests.defenses.uploads import TURN

FEW = Protocol(negatives=20)


def own(seed: int = 0) -> Own:
    rng = torch.Generator().manual_seed(seed)
    rows, received = torch.randn(2, 3, 5, 4, generator=rng).double()
    return Own("items", rows, received, torch.arange(15).view(3, 5), torch.ones(3, 5))


@given(st.floats(1e-4, 10), st.floats(1e-4, 1e4))
def test_its_step_is_one_against_the_gradient_where_it_ends(
    mu: float, rate: float
) -> None:
    """v - v' = -rate d/dv mu |v - received|^2, by autograd at v."""
    given_ = own()
    v = Anchor(mu).settle(given_, rate).requires_grad_()
    term = mu * (v - given_.received).square().sum()
    (gradient,) = torch.autograd.grad(term, v)

    torch.testing.assert_close(
        v.detach(), given_.rows - rate * gradient, rtol=1e-6, atol=1e-6
    )


def test_a_small_step_is_that_of_sgd_on_the_released_loss() -> None:
    given_, mu, rate = own(), 0.1, 1e-3
    v = given_.rows.clone().requires_grad_()
    loss = ((v - given_.received) ** 2).sum()  # update.py, line 71
    (gradient,) = torch.autograd.grad(mu * loss, v)

    found = Anchor(mu).settle(given_, rate)

    torch.testing.assert_close(
        found - given_.rows, -rate * gradient, rtol=1e-3, atol=1e-12
    )


def test_no_learning_rate_makes_it_overshoot() -> None:
    given_ = own()
    found = Anchor(1.0).settle(given_, 1e6) - given_.received
    assert found.abs().max() < 1e-5


def test_no_strength_is_no_term() -> None:
    assert ImiaRegularizer(0.0).penalty(TURN) is None
    assert ImiaRegularizer(0.2).penalty(TURN) == Anchor(0.2)


def test_a_method_of_one_step_is_refused() -> None:
    world = leave_one_out(demo(users=24, items=60))
    with pytest.raises(SettingsError, match=r"bpr takes one local step.*take fedncf"):
        run(Setup(world, BPR(), Plain(), (ImiaRegularizer(),), protocol=FEW, rounds=1))


@pytest.mark.parametrize("mu", [-0.1, float("inf")])
def test_an_unusable_strength_is_refused(mu: float) -> None:
    with pytest.raises(ValueError, match="mu"):
        ImiaRegularizer(mu)
