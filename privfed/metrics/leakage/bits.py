"""What an upload can tell at most of each rating, where noise is all that hides it."""

import torch
from torch import Tensor


def bits_per_rating(slope: Tensor, variance: float, deviation: float) -> Tensor:
    """Mutual information of a rating and its row of the upload, at most; in bits.

    The row is ``slope`` times the rating, in length, plus Gaussian noise of so much
    ``deviation`` on each number, and the ratings have ``variance``: a Gaussian channel,
    1/2 log2(1 + slope^2 variance / deviation^2), which no other distribution of ratings
    exceeds. For matrix factorization, whose gradient is -2 e x, the slope is 2 |x|.
    Infinite without noise. Shannon, 1948.
    """
    if variance < 0 or deviation < 0:
        raise ValueError("variance and deviation must be 0 or more")
    signal = slope.double().square() * variance
    if deviation == 0:
        return torch.where(signal > 0, torch.inf, 0.0).to(signal)
    return torch.log2(1 + signal / deviation**2) / 2
