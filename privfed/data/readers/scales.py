"""Which grid ratings live on, where the source does not say."""

import numpy as np
import pandas as pd

from privfed.data.interactions import Scale

WHOLE_STARS = Scale(1.0, 5.0, 1.0)
HALF_STARS = Scale(0.5, 5.0, 0.5)


def infer_scale(ratings: "pd.Series[float]") -> Scale | None:
    """The grid of these ratings; None where all are equal (implicit data).

    Stars where they fit, else from the least to the greatest rating by the
    smallest gap between two of them, or, where the gaps have no such common
    measure, by 1e-6 of the range.
    """
    values = np.unique(ratings.to_numpy(dtype=np.float64))
    if len(values) < 2:
        return None
    for stars in (WHOLE_STARS, HALF_STARS):
        if values[0] >= stars.low and values[-1] <= stars.high and on(values, stars):
            return stars
    low, high = float(values[0]), float(values[-1])
    grid = Scale(low, high, float(np.diff(values).min()))
    return grid if on(values, grid) else Scale(low, high, (high - low) * 1e-6)


def on(values: "np.typing.NDArray[np.floating]", scale: Scale) -> bool:
    """Whether every value lies on the grid."""
    steps = (values - scale.low) / scale.step
    return bool(np.all(np.abs(steps - np.round(steps)) <= 1e-6))
