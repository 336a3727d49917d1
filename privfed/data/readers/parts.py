"""The split that a source fixes: its words and its numbers."""

import numpy as np

from privfed.data.interactions import TEST, TRAIN, VALIDATION, DataError
from privfed.data.readers.rows import Rows

WORDS = {
    "train": TRAIN,
    "training": TRAIN,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "val": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
    "0": TRAIN,
    "1": VALIDATION,
    "2": TEST,
}


def check_parts(rows: Rows) -> None:
    """Raise DataError unless every part is 0, 1 or 2."""
    part = rows.frame["part"].to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(~np.isin(part, (TRAIN, VALIDATION, TEST)))
    if len(wrong):
        raise DataError(
            f"{rows.place(wrong[0])}: split {part[wrong[0]]:g} is not 0 (training), "
            "1 (validation) or 2 (test); correct the cell"
        )
