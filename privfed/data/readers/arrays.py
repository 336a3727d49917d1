"""Precomputed item features: ``.npy`` files, never unpickled."""

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from privfed.data.interactions import DataError

MAX_CELLS = 2**31


def matrix(path: Path, rows: int) -> Tensor:
    """A float32 matrix of one row an item.

    Raises DataError where the file is cut off, pickled, of other than ``rows``
    rows, or holds a value that is not finite.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of headers by Python 2
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header fails in a dozen ways
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{path}: cut off or no plain .npy array ({reason}); save it again "
            "with numpy.save of floats"
        ) from error
    if array.dtype.kind != "f" or array.ndim != 2 or array.size > MAX_CELLS:
        raise DataError(
            f"{path}: a {array.dtype} array of shape {array.shape}, where a float "
            "matrix (items, width) belongs; save it so"
        )
    if len(array) != rows:
        raise DataError(
            f"{path}: {len(array)} rows for {rows} items; write one row an item"
        )
    return _finite(path, torch.from_numpy(array.astype(np.float32)))


def _finite(path: Path, features: Tensor) -> Tensor:
    wrong = (~torch.isfinite(features)).any(dim=1).nonzero()
    if len(wrong):
        raise DataError(
            f"{path}: row {int(wrong[0])} (from 0) holds NaN or infinity; compute "
            "that item's features again"
        )
    return features
