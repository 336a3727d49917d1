"""Rows as files spell them, to indexed and sorted interactions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from privfed.data.interactions import DataError, Interactions, Scale

Order = Literal["number", "appearance", "index"]
Repeats = Literal["refuse", "keep", "drop"]
MAX_IDS = 50_000_000
_LATEST = 2.0**53  # beyond it, floats no longer tell stamps apart
_INDEX_SLACK = 100  # an index may leave this many gaps for each row


@dataclass(frozen=True, eq=False)
class Rows:
    """Interactions of several files, each row with the place it came from.

    ``frame`` has the columns user, item, [rating, time, part,] file, line.
    """

    frame: pd.DataFrame
    files: tuple[Path, ...]

    def place(self, position: int) -> str:
        """``file, line n`` of a row."""
        row = self.frame.iloc[position]
        return f"{self.files[int(row['file'])]}, line {int(row['line'])}"


def stack(parts: Sequence[tuple[Path, pd.DataFrame]]) -> Rows:
    """Rows of several files, one after the other."""
    frames = [
        frame.assign(file=np.int8(at), line=frame["line"].astype(np.int32))
        for at, (_, frame) in enumerate(parts)
    ]
    frame = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    return Rows(frame, tuple(path for path, _ in parts))


@dataclass(frozen=True)
class Reading:
    """How rows become interactions.

    ``users`` and ``items`` say how ids are ordered: by ``number`` where every id
    is one (else by appearance), by first ``appearance``, or as the ``index``
    that they already are. ``repeats`` says what a pair that occurs twice means:
    an error, two interactions, or one (the first row).
    """

    users: Order = "number"
    items: Order = "number"
    scale: Scale | None = None
    repeats: Repeats = "refuse"


def assemble(name: str, rows: Rows, reading: Reading) -> Interactions:
    """Interactions sorted by user, then time (undated first), then file order."""
    if reading.scale:
        _check_ratings(rows, reading.scale)
    user, user_ids = _index(rows, "user", reading.users)
    item, item_ids = _index(rows, "item", reading.items)
    time = _times(rows)
    keep = _kept(rows, user, item, reading.repeats)
    when = time[keep] if time is not None else keep
    order = keep[np.lexsort((keep, when, user[keep]))]
    return Interactions(
        name=name,
        users=len(user_ids),
        items=len(item_ids),
        user=torch.from_numpy(user[order]),
        item=torch.from_numpy(item[order]),
        rating=_column(rows, "rating", np.float32, order),
        time=None if time is None else torch.from_numpy(time[order]),
        part=_column(rows, "part", np.int8, order),
        scale=reading.scale,
        user_ids=user_ids,
        item_ids=item_ids,
    )


def _column(
    rows: Rows, name: str, dtype: type[np.generic], order: NDArray[np.int64]
) -> Tensor | None:
    if name not in rows.frame:
        return None
    return torch.from_numpy(rows.frame[name].to_numpy(dtype)[order])


def _times(rows: Rows) -> NDArray[np.int64] | None:
    """Whole time stamps, -1 where a row has none; None where no row has one."""
    if "time" not in rows.frame or bool(rows.frame["time"].isna().all()):
        return None
    time = rows.frame["time"].to_numpy(dtype=np.float64)
    wrong = np.flatnonzero((time < 0) | (time >= _LATEST))
    if len(wrong):
        raise DataError(
            f"{rows.place(wrong[0])}: {time[wrong[0]]:g} is no time stamp; count "
            "(milli)seconds since 1970, or leave the cell empty"
        )
    return np.where(np.isnan(time), -1, time).astype(np.int64)


def _index(
    rows: Rows, column: str, order: Order
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    values = rows.frame[column]
    if order == "index":
        return _as_index(rows, column)
    codes, ids = pd.factorize(values)
    names = pd.Series(ids).astype(str)
    if order == "number" and bool(names.str.fullmatch(r"\d{1,18}").all()):
        by_number = np.argsort(names.astype(np.int64).to_numpy(), kind="stable")
        rank = np.empty_like(by_number)
        rank[by_number] = np.arange(len(by_number))
        codes, names = rank[codes], names.iloc[by_number]
    return codes.astype(np.int64), tuple(names)


def _as_index(rows: Rows, column: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    values = rows.frame[column].to_numpy(dtype=np.int64)
    last = int(values.max())
    bound = min(MAX_IDS, _INDEX_SLACK * (len(values) + 100))
    wrong = np.flatnonzero((values < 0) | (values >= bound))
    if len(wrong):
        raise DataError(
            f"{rows.place(wrong[0])}: {column} {values[wrong[0]]} is no index; "
            f"number the {column}s from 0"
        )
    return values, tuple(map(str, range(last + 1)))


def _kept(
    rows: Rows, user: NDArray[np.int64], item: NDArray[np.int64], repeats: Repeats
) -> NDArray[np.int64]:
    """Positions of the rows to keep."""
    if repeats == "keep":
        return np.arange(len(user))
    pair = pd.Series(user * (int(item.max()) + 1) + item)
    again = pair.duplicated().to_numpy()
    if repeats == "refuse" and again.any():
        second = int(np.flatnonzero(again)[0])
        first = int(np.flatnonzero((pair == pair.iloc[second]).to_numpy())[0])
        twice = rows.frame["user"].iloc[second], rows.frame["item"].iloc[second]
        raise DataError(
            f"{rows.place(second)}: user {twice[0]} has item {twice[1]} a "
            f"second time (first: {rows.place(first)}); remove one of the rows"
        )
    return np.flatnonzero(~again)


def _check_ratings(rows: Rows, scale: Scale) -> None:
    rating = rows.frame["rating"].to_numpy(dtype=np.float64)
    steps = (rating - scale.low) / scale.step
    off = np.abs(steps - np.round(steps)) > 1e-6
    wrong = np.flatnonzero((rating < scale.low) | (rating > scale.high) | off)
    if len(wrong):
        raise DataError(
            f"{rows.place(wrong[0])}: rating {rating[wrong[0]]:g} is not on the "
            f"scale {scale.low:g} to {scale.high:g} by {scale.step:g}; "
            "correct or remove the row"
        )
