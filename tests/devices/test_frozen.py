"""A layer on fixed input, trained in dual form, is the layer trained as itself."""

import torch
from torch import Generator, Tensor

from privfed.data.cohort import Cohort
from privfed.devices.batches import Samples, collect
from privfed.devices.frozen import Frozen
from privfed.devices.negatives import Negatives
from privfed.seeds import Seeds
from tests.worlds import everyone, uneven

RNG = Generator().manual_seed(3)
COHORT: Cohort = everyone(uneven())
SAMPLES: Samples = collect(COHORT, Negatives(), Seeds(0)("negatives"))
FEATURES = torch.randn(60, 8, generator=RNG)
WEIGHT = torch.randn(4, 8, generator=RNG)
BIAS = torch.randn(4, generator=RNG)


def two_steps() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weight and bias of each client, its dual, and its samples' inputs."""
    own = FEATURES[SAMPLES.item].double()
    clients, rows = SAMPLES.item.shape
    weight = WEIGHT.double().expand(clients, -1, -1)
    bias = BIAS.double().expand(clients, -1)
    dual = torch.zeros(clients, rows, 4, dtype=torch.float64)
    for rate in (0.1, 0.3):
        delta = torch.randn(clients, rows, 4, generator=RNG, dtype=torch.float64)
        delta *= SAMPLES.rows[..., None]
        weight = weight - rate * delta.transpose(1, 2) @ own
        bias = bias - rate * delta.sum(1)
        dual = dual - rate * delta
    return weight, bias, dual.float(), own


def test_the_output_is_the_stepped_layers() -> None:
    weight, bias, dual, own = two_steps()
    layer = Frozen.of(SAMPLES, FEATURES, WEIGHT, BIAS)

    expected = own @ weight.transpose(1, 2) + bias[:, None]
    torch.testing.assert_close(
        layer.output(dual).double(), expected, rtol=1e-4, atol=1e-3
    )


def test_the_change_is_the_stepped_layers() -> None:
    weight, bias, dual, _ = two_steps()
    moved, shifted = Frozen.of(SAMPLES, FEATURES, WEIGHT, BIAS).change(dual)

    torch.testing.assert_close(
        moved.double(), weight - WEIGHT.double(), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        shifted.double(), bias - BIAS.double(), rtol=1e-4, atol=1e-5
    )


def test_before_any_step_it_is_the_model() -> None:
    layer = Frozen.of(SAMPLES, FEATURES, WEIGHT, BIAS)
    nothing = torch.zeros_like(layer.start)

    torch.testing.assert_close(
        layer.output(nothing), (FEATURES @ WEIGHT.T + BIAS)[SAMPLES.item]
    )
    assert not any(change.any() for change in layer.change(nothing))
