"""A layer kept as start and low-rank change is the layer stepped as itself."""

import torch
from torch import Generator, Tensor

from privfed.devices.low_rank import LowRank, pays

CLIENTS, SAMPLES, WIDTH, OUT, STEPS = 3, 5, 8, 4, 4


def normal(*size: int, seed: int) -> Tensor:
    return torch.randn(*size, generator=Generator().manual_seed(seed))


def start() -> tuple[Tensor, Tensor]:
    """One weight and bias that all clients share."""
    weight, bias = normal(OUT, WIDTH, seed=1), normal(OUT, seed=2)
    return weight.expand(CLIENTS, OUT, WIDTH), bias.expand(CLIENTS, OUT)


def test_every_step_sees_what_the_stepped_layer_shows() -> None:
    weight, bias = (x.double() for x in start())
    layer = LowRank.of(*start(), SAMPLES * STEPS)

    for k in range(STEPS):
        x = normal(CLIENTS, SAMPLES, WIDTH, seed=10 + k)
        delta = normal(CLIENTS, SAMPLES, OUT, seed=20 + k)
        torch.testing.assert_close(
            layer.output(x).double(),
            x.double() @ weight.transpose(1, 2) + bias[:, None],
            rtol=1e-4,
            atol=1e-5,
        )
        torch.testing.assert_close(
            layer.back(delta).double(), delta.double() @ weight, rtol=1e-4, atol=1e-5
        )
        layer.step(x, delta, 0.1 * (k + 1))
        weight = weight - 0.1 * (k + 1) * delta.double().transpose(1, 2) @ x.double()
        bias = bias - 0.1 * (k + 1) * delta.double().sum(1)

    moved, shifted = layer.change()
    first = [x.double() for x in start()]
    torch.testing.assert_close(moved.double(), weight - first[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shifted.double(), bias - first[1], rtol=1e-4, atol=1e-5)


def test_the_shared_start_and_a_later_input_are_left_as_they_are() -> None:
    """A table that is stepped in place after it was read must not change the past."""
    weight, bias = start()
    before, x = weight.clone(), normal(CLIENTS, SAMPLES, WIDTH, seed=3)
    layer = LowRank.of(weight, bias, SAMPLES)
    layer.step(x, normal(CLIENTS, SAMPLES, OUT, seed=4), 0.1)
    expected = layer.change()[0].clone()
    x.zero_()

    assert torch.equal(layer.change()[0], expected)
    assert torch.equal(weight, before)


def test_before_any_step_nothing_has_changed() -> None:
    moved, shifted = LowRank.of(*start(), SAMPLES).change()

    assert moved.shape == (CLIENTS, OUT, WIDTH)
    assert not moved.any()
    assert not shifted.any()


def test_it_pays_for_few_samples_and_wide_layers_only() -> None:
    assert pays((512, 64), 40)
    assert not pays((512, 64), 500)
    assert not pays((64, 1), 8)
    assert not pays((64, 3), 8)
