"""NCF's evaluation protocol: one held-out item a user and 99 stored negatives.

``<name>.test.rating`` has rows ``user item rating time``; ``<name>.test.negative``
has rows ``(user,item) negative negative ...``; ids are indices from 0.
He et al., Neural Collaborative Filtering, WWW 2017.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from privfed.data.interactions import TEST, TRAIN, DataError, Interactions
from privfed.data.readers.columns import Column, Layout, delimited
from privfed.data.readers.files import first_line

MAX_NEGATIVES = 10_000
_HELD_OUT = Layout(
    separator="\t",
    columns=(
        Column("user", "integer", position=0),
        Column("item", "integer", position=1),
    ),
    header=False,
)


def held_out(path: Path, data: Interactions) -> Tensor:
    """The part of each interaction: test for the rows listed, else training."""
    rows = delimited(path, _HELD_OUT)
    listed = _pair(rows["user"].to_numpy(), rows["item"].to_numpy(), data)
    present = _pair(data.user.numpy(), data.item.numpy(), data)
    unknown = np.flatnonzero(~np.isin(listed, present))
    if len(unknown):
        raise DataError(
            f"{path}, line {unknown[0] + 1}: no such interaction in the ratings; "
            "take both files from the same source"
        )
    part = np.where(np.isin(present, listed), TEST, TRAIN).astype(np.int8)
    return torch.from_numpy(part)


def _pair(
    user: "np.typing.NDArray[np.int64]",
    item: "np.typing.NDArray[np.int64]",
    data: Interactions,
) -> "np.typing.NDArray[np.int64]":
    """One number a pair; -1 for a pair outside the population."""
    inside = (user >= 0) & (user < data.users) & (item >= 0) & (item < data.items)
    return np.where(inside, user * data.items + item, -1)


def candidates(path: Path, data: Interactions) -> Tensor:
    """The negatives of every user, (users, negatives)."""
    width = first_line(path).count("\t")
    if not 0 < width <= MAX_NEGATIVES:
        raise DataError(f"{path}, line 1: {width} negatives; fetch the file again")
    negatives = tuple(
        Column(f"n{at}", "integer", position=at) for at in range(1, width + 1)
    )
    key = Column("key", "text", position=0)
    rows = delimited(path, Layout("\t", (key, *negatives), header=False))
    user = rows["key"].str.extract(r"^\((\d{1,9}),\d{1,9}\)$")[0]
    values = rows[[column.name for column in negatives]].to_numpy()
    wrong = user.isna().to_numpy() | ((values < 0) | (values >= data.items)).any(axis=1)
    if wrong.any():
        raise DataError(
            f"{path}, line {int(np.argmax(wrong)) + 1}: not '(user,item)' and item "
            f"indices below {data.items}; take it from the source of the ratings"
        )
    owner = user.astype(np.int64).to_numpy()
    if not np.array_equal(np.sort(owner), np.arange(data.users)):
        raise DataError(
            f"{path}: {len(owner)} lines do not name each of {data.users} users "
            "once; take it from the source of the ratings"
        )
    return torch.from_numpy(values[np.argsort(owner)])
