"""Which items stand out of noise of known size, on the side of the interactions.

For uploads that hold every row. Noise alone has deviation 1; an interaction adds an
unknown amount, uniform from 0 to what loud rows have at most.
"""

from math import pi

import torch
from torch import Tensor

_TURNS = 20  # of counting the interactions
_FAINT = 1.0  # what is added at most where nothing stands out
_MOST, _LEAST = 0.95, 1e-12


def log_odds(told: Tensor, loud: Tensor, share: Tensor, usual: float) -> Tensor:
    """How much more likely an interaction than not, (clients, items) float64.

    ``told`` (clients, items) is in deviations of the noise, ``loud`` marks what
    cannot be noise. An item's chance beforehand is its ``share`` of as many
    interactions as the others add up to, ``usual`` many to begin with.
    """
    size = (told.abs() * loud).sum(1, keepdim=True) / loud.sum(1, keepdim=True)
    most = torch.where(loud.any(1, keepdim=True), 2 * size, _FAINT).clamp_min(_FAINT)
    ratio = _ratio(told, most)
    many = torch.full_like(most, usual)
    odds = torch.zeros_like(ratio)
    for _ in range(_TURNS):
        odds = torch.logit((many * share).clamp(_LEAST, _MOST)) + ratio
        many = odds.sigmoid().sum(1, keepdim=True)
    return odds


def _ratio(told: Tensor, most: Tensor) -> Tensor:
    """Log likelihood with an added amount over that of noise alone.

    The mean of normal densities around 0 to ``most``, over the one around 0.
    """
    upper, lower = torch.special.log_ndtr(told), torch.special.log_ndtr(told - most)
    mean = upper + torch.log1p(-torch.exp(lower - upper).clamp_max(1 - 1e-12))
    noise = -told.square() / 2 - torch.log(torch.tensor(2 * pi)) / 2
    ratio: Tensor = mean - most.log() - noise
    return ratio
