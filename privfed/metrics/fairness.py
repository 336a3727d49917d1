"""How evenly clients are served; each figure takes a metric of each client.

``values`` is (clients,), without NaN. All of them move with the mean, so report
the mean beside them (Cali3F reports the standard deviation of NDCG@10).
"""

import math

import torch
from torch import Tensor


def deviation(values: Tensor) -> float:
    """Population standard deviation over clients."""
    return float(_checked(values).std(correction=0))


def worst_mean(values: Tensor, share: float = 0.1) -> float:
    """Mean over the worst served share of clients, one client at least."""
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share}")
    count = max(1, math.ceil(share * len(values) - 1e-9))
    return float(_checked(values).sort().values[:count].mean())


def gini(values: Tensor) -> float:
    """Gini coefficient: 0 where all are equal; 0 too where all are zero."""
    ascending = _checked(values).sort().values
    if bool((ascending < 0).any()):
        raise ValueError("a Gini coefficient needs values of 0 or more")
    total = ascending.sum()
    if total == 0:
        return 0.0
    place = torch.arange(1, len(ascending) + 1)
    excess = (2 * place - len(ascending) - 1) * ascending
    return float(excess.sum() / (len(ascending) * total))


def _checked(values: Tensor) -> Tensor:
    if not len(values):
        raise ValueError("fairness needs at least one client")
    if not bool(values.isfinite().all()):
        raise ArithmeticError("a client's figure is not finite")
    return values.double()
