"""The rules written out slowly, from the papers and from the code that PIECK shipped.

Each takes ``x``, (clients, width), and returns (width,), or the positions picked.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def distance(a: Matrix, b: Matrix, squared: bool) -> float:
    square = float(((a - b) ** 2).sum())
    return square if squared else square**0.5


def score(x: Matrix, me: int, others: Sequence[int], near: int, squared: bool) -> float:
    away = sorted(distance(x[me], x[other], squared) for other in others if other != me)
    return sum(away[:near])


def krum(x: Matrix, f: int, less: int, squared: bool) -> list[int]:
    """Positions from the best to the worst, all scored once."""
    every, near = range(len(x)), max(1, len(x) - f - less)
    scores = [score(x, i, every, near, squared) for i in every]
    return sorted(every, key=lambda i: (scores[i], i))


def one_by_one(x: Matrix, f: int, less: int, squared: bool, keep: int) -> list[int]:
    """The best, then the best of those left, until ``keep`` are picked."""
    left, picked = list(range(len(x))), []
    for _ in range(keep):
        near = max(0, len(left) - f - less)
        scores = {i: score(x, i, left, near, squared) for i in left}
        best = min(left, key=lambda i: (scores[i], i))
        picked.append(best)
        left.remove(best)
    return sorted(picked)


def ends(x: Matrix, cut: int) -> Matrix:
    found = [np.mean(sorted(column)[cut : len(column) - cut]) for column in x.T]
    return np.array(found)


def nearest(x: Matrix, away: int) -> Matrix:
    """PIECK's trimmed mean: sort by the distance to the median, leave the last out."""
    found = []
    for column in x.T:
        middle = np.median(column)
        by = sorted(column, key=lambda v: (abs(v - middle), v))
        found.append(np.mean(by[: len(by) - away]))
    return np.array(found)


def bulyan(x: Matrix, f: int, less: int, squared: bool) -> Matrix:
    picked = one_by_one(x, f, less, squared, len(x) - 2 * f)
    return nearest(x[picked], 2 * f)


def pieck_krum(x: Matrix, f: int) -> Matrix:
    """As PIECK's code has it: n - f neighbors, plain distances, times the senders."""
    best: Matrix = x[krum(x, f, 0, False)[0]] * len(x)
    return best


def pieck_multi_krum(x: Matrix, f: int) -> Matrix:
    """As PIECK's code has it: n - 2 f one by one; times how many it keeps."""
    keep = len(x) - 2 * f
    picked: Matrix = x[one_by_one(x, f, 0, False, keep)].mean(0) * keep
    return picked


def pieck_bulyan(x: Matrix, f: int) -> Matrix:
    """As PIECK's code has it; times how many Krum keeps."""
    return bulyan(x, f, 0, False) * (len(x) - 2 * f)
