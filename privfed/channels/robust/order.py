"""Order statistics of the clients of a group, one coordinate at a time.

Every function takes ``x``, (groups, clients, width), and returns one vector a group,
(groups, width). A number that is not a number counts as the largest.
"""

import numpy as np
import torch
from torch import Tensor


def mean(x: Tensor) -> Tensor:
    """The mean over the clients."""
    return x.mean(1, dtype=torch.float64).to(x.dtype)


def median(x: Tensor) -> Tensor:
    """The median over the clients; of an even number, the mean of the middle two."""
    return _middle(ascending(x, 1)).to(x.dtype)


def without_ends(x: Tensor, cut: int) -> Tensor:
    """The mean without the ``cut`` largest and the ``cut`` smallest.

    Yin et al., Byzantine-robust distributed learning, ICML 2018, definition 2.
    """
    return mean(ascending(x, 1)[:, cut : x.shape[1] - cut])


def near_median(x: Tensor, away: int) -> Tensor:
    """The mean without the ``away`` numbers that are farthest from the median.

    What is left is a window of the sorted numbers; of two that are equally far, the
    larger goes.
    """
    sorted_ = ascending(x, 1)
    keep = x.shape[1] - away
    middle = _middle(sorted_)[:, None]
    below, above = middle - sorted_[:, :away], sorted_[:, keep:] - middle
    first = (below > above).sum(1, keepdim=True)
    place = torch.arange(x.shape[1], device=x.device)[:, None]
    inside = (place >= first) & (place < first + keep)
    total = torch.where(inside, sorted_, 0.0).sum(1, dtype=torch.float64)
    return (total / keep).to(x.dtype)


def ascending(x: Tensor, dim: int) -> Tensor:
    """Sorted along an axis, what is not a number last."""
    if x.device.type == "cpu":  # NumPy's sort is many times faster there
        return torch.from_numpy(np.sort(x.numpy(), axis=dim))
    return x.sort(dim).values


def _middle(sorted_: Tensor) -> Tensor:
    count = sorted_.shape[1]
    low, high = sorted_[:, (count - 1) // 2], sorted_[:, count // 2]
    return (low.double() + high.double()) / 2
