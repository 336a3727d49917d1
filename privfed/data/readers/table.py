"""A plain table with a header: csv, tsv, csv.gz or parquet."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from privfed.data.interactions import DataError, Interactions, Scale
from privfed.data.readers import parquet
from privfed.data.readers.columns import Column, Kind, Layout, delimited
from privfed.data.readers.files import first_line
from privfed.data.readers.parts import WORDS, check_parts
from privfed.data.readers.rows import Reading, Repeats, Rows, assemble, stack
from privfed.data.readers.scales import infer_scale

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
ALIASES: Mapping[str, Sequence[str]] = {
    "user": ("user", "user_id", "userid", "uid", "reviewerid", "customer_id"),
    "item": (
        "item",
        "item_id",
        "itemid",
        "iid",
        "movie_id",
        "movieid",
        "product_id",
        "parent_asin",
        "asin",
        "business_id",
        "book_id",
    ),
    "rating": ("rating", "ratings", "stars", "score", "overall"),
    "timestamp": ("timestamp", "time", "unixreviewtime"),
    "split": ("split", "split_label", "part", "fold"),
}
_KINDS: Mapping[str, tuple[str, Kind, bool]] = {
    "user": ("user", "text", False),
    "item": ("item", "text", False),
    "rating": ("rating", "number", False),
    "timestamp": ("time", "number", True),
    "split": ("part", "text", False),
}


def read(
    path: Path,
    user: str = "",
    item: str = "",
    rating: str = "",
    timestamp: str = "",
    split: str = "",
    low: float | None = None,
    high: float | None = None,
    repeats: Repeats = "refuse",
) -> Interactions:
    """The table's interactions; a column is found by its usual names or as named.

    Ratings that are all equal are implicit data. ``low`` and ``high`` bound the
    ratings where the table's own least and greatest do not say it all.
    """
    named = {
        "user": user,
        "item": item,
        "rating": rating,
        "timestamp": timestamp,
        "split": split,
    }
    file = path if path.is_file() else _only(path)
    header = _header(file)
    columns = _find(file, header, {key: name for key, name in named.items() if name})
    frame = _numbered_parts(file, _load(file, columns))
    rows = stack([(file, frame)])
    if "part" in frame:
        check_parts(rows)
    data = assemble(file.name.split(".")[0], rows, Reading(repeats=repeats))
    if data.rating is None:
        return data
    scale = _scale(rows, low, high)
    return replace(data, scale=scale, rating=data.rating if scale else None)


def _only(folder: Path) -> Path:
    found = [at for at in sorted(folder.glob("*")) if at.name.endswith(SUFFIXES)]
    if len(found) != 1:
        raise DataError(
            f"{folder}: {len(found)} tables where one belongs; name the file"
        )
    return found[0]


def _header(path: Path) -> list[str]:
    if path.suffix == ".parquet":
        return parquet.header(path)
    line = first_line(path).lstrip("\ufeff")
    try:
        cells = next(csv.reader([line], delimiter=_separator(path)), [])
    except csv.Error as error:
        raise DataError(f"{path}, line 1: {error}; correct the line") from error
    return [cell.strip() for cell in cells]


def _separator(path: Path) -> str:
    line = first_line(path)
    return max(",\t;|", key=line.count)


def _find(
    path: Path, header: Sequence[str], named: Mapping[str, str]
) -> tuple[Column, ...]:
    """Which column is which."""
    lower = {name.lower(): name for name in reversed(header)}
    columns = []
    for key, aliases in ALIASES.items():
        fitting = (lower[alias] for alias in aliases if alias in lower)
        source = named.get(key) or next(fitting, "")
        if source:
            name, kind, blank = _KINDS[key]
            columns.append(Column(name, kind, source=source, blank=blank))
        elif key in ("user", "item"):
            raise DataError(
                f"{path}, line 1: no {key} column among {', '.join(header)[:200]}; "
                f"say which it is: --format table:{key}=NAME"
            )
    return tuple(columns)


def _load(path: Path, columns: tuple[Column, ...]) -> pd.DataFrame:
    if path.suffix == ".parquet":
        return parquet.read_parquet(path, columns)
    return delimited(path, Layout(_separator(path), columns, header=True, quoted=True))


def _numbered_parts(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """The split's words as numbers."""
    if "part" not in frame:
        return frame
    part = frame["part"].astype(str).str.strip().str.lower().map(WORDS)
    unknown = np.flatnonzero(part.isna().to_numpy())
    if len(unknown):
        row = frame.iloc[unknown[0]]
        raise DataError(
            f"{path}, line {row['line']}: split {row['part']!r} is not one of "
            f"{', '.join(WORDS)}; correct the cell"
        )
    return frame.assign(part=part.astype(np.int8))


def _scale(rows: Rows, low: float | None, high: float | None) -> Scale | None:
    ratings = rows.frame["rating"]
    bottom = -np.inf if low is None else low
    top = np.inf if high is None else high
    wrong = np.flatnonzero(((ratings < bottom) | (ratings > top)).to_numpy())
    if len(wrong):
        raise DataError(
            f"{rows.place(wrong[0])}: rating {ratings.iloc[wrong[0]]:g} is outside "
            f"{bottom:g} to {top:g}; correct or remove the row"
        )
    found = infer_scale(ratings)
    if found is None:
        return None
    return Scale(
        found.low if low is None else low,
        found.high if high is None else high,
        found.step,
    )
