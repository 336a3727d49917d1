"""What noise leaves to be told of a rating."""

import numpy as np
import pytest
import torch
from scipy import integrate
from scipy.stats import norm

from privfed.metrics.leakage.bits import bits_per_rating


def one(slope: float, variance: float, deviation: float) -> float:
    return float(bits_per_rating(torch.tensor([slope]), variance, deviation))


@pytest.mark.parametrize(
    ("slope", "deviation"), [(0.1, 1.0), (1.0, 1.0), (2.0, 0.3), (0.5, 0.1)]
)
def test_it_is_the_information_of_a_gaussian_channel(
    slope: float, deviation: float
) -> None:
    """Mutual information as h(output) - h(noise), both integrated."""
    spread = (slope**2 * 1.2 + deviation**2) ** 0.5

    def entropy(scale: float) -> float:
        told = integrate.quad(
            lambda x: -norm.pdf(x, scale=scale) * norm.logpdf(x, scale=scale),
            -12 * scale,
            12 * scale,
        )
        return float(told[0] / np.log(2))

    expected = entropy(spread) - entropy(deviation)
    assert one(slope, 1.2, deviation) == pytest.approx(expected, rel=1e-6)


def test_no_other_ratings_tell_more() -> None:
    """Whole stars, equally likely: their information by numeric integration."""
    stars = np.arange(1, 6)
    for deviation in (0.3, 1.0, 3.0):

        def density(x: float, scale: float = deviation) -> float:
            return float(norm.pdf(x, loc=stars, scale=scale).mean())

        total, _ = integrate.quad(
            lambda x: -density(x) * np.log2(density(x) + 1e-300), -20, 26, limit=400
        )
        noise = 0.5 * np.log2(2 * np.pi * np.e * deviation**2)
        assert total - noise <= one(1.0, float(stars.var()), deviation) + 1e-9


def test_the_ends() -> None:
    assert one(1.0, 1.0, 1e12) == pytest.approx(0, abs=1e-12)
    assert one(1.0, 1.0, 0.0) == float("inf")
    assert one(0.0, 1.0, 0.0) == 0
    with pytest.raises(ValueError, match="deviation"):
        one(1.0, 1.0, -1.0)
