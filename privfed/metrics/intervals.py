"""Confidence intervals of a reported figure: over clients, and over seeds."""

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from privfed.seeds import Stream

_CELLS = 4_000_000  # resampled values that are held at once
_RESAMPLES = 1_000


def bootstrap(
    values: Tensor,
    stream: Stream,
    counts: Tensor | None = None,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap over clients of sum(values) / sum(counts), (low, high).

    ``values`` and ``counts`` are (clients,); without counts it is the mean of the
    values. NaN marks a client for whom the figure is undefined and is left out. Fewer
    than two values have no interval: (nan, nan). 1,000 resamples, a pure function of
    the stream. Raises ArithmeticError on an infinity.
    """
    from scipy import stats

    _check_confidence(confidence)
    known = values.double().cpu().numpy()
    share = np.ones_like(known) if counts is None else counts.double().cpu().numpy()
    known, share = known[~np.isnan(known)], share[~np.isnan(known)]
    if not np.isfinite(known).all():
        raise ArithmeticError("a value to average is infinite")
    if len(known) < 2:
        return math.nan, math.nan
    interval = stats.bootstrap(
        (known, share),
        _ratio,
        paired=True,
        n_resamples=_RESAMPLES,
        batch=max(1, _CELLS // len(known)),
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(stream.key & (2**64 - 1)),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _ratio(
    total: np.ndarray, count: np.ndarray, axis: int = -1
) -> np.ndarray:  # as scipy calls it
    return np.asarray(total.sum(axis=axis) / count.sum(axis=axis))


def over_seeds(
    values: Sequence[float], confidence: float = 0.95
) -> tuple[float, float]:
    """Student's t interval of the mean over runs with different seeds, (low, high).

    Raises ValueError for fewer than two values, ArithmeticError for a non-finite
    one.
    """
    from scipy import stats

    _check_confidence(confidence)
    if len(values) < 2:
        raise ValueError(f"an interval over seeds needs 2 runs, got {len(values)}")
    if not all(math.isfinite(value) for value in values):
        raise ArithmeticError("a run's figure is not finite")
    runs = np.asarray(values, dtype=np.float64)
    error = float(runs.std(ddof=1)) / math.sqrt(len(runs))
    half = float(stats.t.ppf((1 + confidence) / 2, len(runs) - 1)) * error
    return float(runs.mean()) - half, float(runs.mean()) + half


def paired(
    first: Sequence[float], second: Sequence[float], confidence: float = 0.95
) -> tuple[float, float]:
    """Student's t interval of the mean of first - second, run by run.

    Position k of both must be runs of the same seed; sharing every draw but those
    of the part that differs, they are far less noisy than unpaired runs.
    """
    if len(first) != len(second):
        raise ValueError(
            f"paired runs must match one to one, got {len(first)} and {len(second)}"
        )
    differences = [a - b for a, b in zip(first, second, strict=True)]
    return over_seeds(differences, confidence)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
