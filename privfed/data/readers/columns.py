"""Delimited text to typed columns, with the line of whatever is wrong."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from privfed.data.interactions import DataError
from privfed.data.readers.files import content, not_utf8, text

Kind = Literal["text", "integer", "number"]
_DTYPES = {"text": "str", "integer": "int64", "number": "float64"}
_WANTED = {"text": "text", "integer": "a whole number", "number": "a finite number"}


@dataclass(frozen=True)
class Column:
    """One column to read: by ``source`` in the header, else by ``position``."""

    name: str
    kind: Kind
    source: str = ""
    position: int = -1
    blank: bool = False  # an empty cell is NaN, not an error


@dataclass(frozen=True)
class Layout:
    """How a delimited file is laid out."""

    separator: str
    columns: tuple[Column, ...]
    header: bool
    quoted: bool = False


def delimited(path: Path, layout: Layout) -> pd.DataFrame:
    """The columns asked for, and ``line``, the line of the file of each row.

    Raises DataError with file, line and mend for a missing column, a cut row, a
    cell of the wrong type, a blank line or bytes that are not UTF-8.
    """
    data = content(path).rstrip(b"\r\n")
    separator = layout.separator
    if len(separator) > 1:  # pandas' fast parser takes one character only
        data, separator = data.replace(separator.encode(), b"\t"), "\t"
    columns = _placed(path, data, separator, layout)
    try:
        with np.errstate(invalid="ignore"):  # 1e999 is refused below, by its line
            frame = _parse(data, separator, columns, layout)
    except (ValueError, TypeError, OverflowError, pd.errors.ParserError) as error:
        raise _blame(path, data, separator, columns, layout, error) from error
    if _incomplete(frame, columns):
        raise _blame(path, data, separator, columns, layout, None)
    first = 2 if layout.header else 1
    return frame.assign(line=pd.RangeIndex(first, first + len(frame)))


def _placed(
    path: Path, data: bytes, separator: str, layout: Layout
) -> tuple[Column, ...]:
    """The columns with their positions, found in the header where there is one."""
    if not layout.header:
        return layout.columns
    try:
        first = data.split(b"\n", 1)[0].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_utf8(path, data, error) from error
    names = [name.strip() for name in next(_rows(path, first, separator, layout), [])]
    return tuple(_place(path, names, column) for column in layout.columns)


def _place(path: Path, names: Sequence[str], column: Column) -> Column:
    if column.source not in names:
        raise DataError(
            f"{path}, line 1: no column '{column.source}' among "
            f"{', '.join(names)[:200]}; rename one or say which it is"
        )
    at = names.index(column.source)
    return Column(column.name, column.kind, column.source, at, column.blank)


def _parse(
    data: bytes, separator: str, columns: Sequence[Column], layout: Layout
) -> pd.DataFrame:
    names = {column.position: column.name for column in columns}
    width = max(names) + 1
    frame = pd.read_csv(
        io.BytesIO(data),
        sep=separator,
        header=None,
        skiprows=1 if layout.header else 0,
        names=[names.get(at, f"_{at}") for at in range(width)],
        usecols=[names[at] for at in sorted(names)],
        dtype={column.name: _DTYPES[column.kind] for column in columns},
        na_values={column.name: [""] for column in columns},
        keep_default_na=False,
        skip_blank_lines=False,
        index_col=False,
        quoting=csv.QUOTE_MINIMAL if layout.quoted else csv.QUOTE_NONE,
        low_memory=False,
    )
    return frame[[column.name for column in columns]]


def _incomplete(frame: pd.DataFrame, columns: Sequence[Column]) -> bool:
    """Whether a needed cell is empty, or a number is infinite."""
    if frame.empty:
        return True
    return any(_unusable(frame[column.name], column) for column in columns)


def _unusable(cells: "pd.Series[float]", column: Column) -> bool:
    if column.kind == "integer":
        return False  # the parser refuses anything else
    if not column.blank and bool(cells.isna().any()):
        return True
    return column.kind == "number" and bool(cells.abs().eq(math.inf).any())


def _blame(
    path: Path,
    data: bytes,
    separator: str,
    columns: Sequence[Column],
    layout: Layout,
    error: Exception | None,
) -> DataError:
    """The error that names the first row at fault: the slow road, on failure only."""
    try:
        lines = data.decode("utf-8-sig")
    except UnicodeDecodeError as undecodable:
        return not_utf8(path, data, undecodable)
    number = 0
    for number, cells in enumerate(_rows(path, lines, separator, layout), 1):
        if layout.header and number == 1:
            continue
        fault = _fault(cells, columns)
        if fault:
            return DataError(f"{path}, line {number}: {fault}")
    if layout.header and number <= 1:
        return DataError(f"{path}, line 2: no rows after the header; fetch it again")
    reason = str(error).strip().splitlines()[-1] if error else "unreadable"
    return DataError(f"{path}: {reason}; correct or remove that row")


def _rows(
    path: Path, lines: str, separator: str, layout: Layout
) -> Iterator[list[str]]:
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if layout.quoted else csv.QUOTE_NONE
    reader = csv.reader(io.StringIO(lines), delimiter=separator, quoting=quoting)
    try:
        yield from reader
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: {error}; correct the line"
        ) from error


def _fault(cells: Sequence[str], columns: Sequence[Column]) -> str:
    if not cells:
        return "the line is empty; delete it"
    for column in columns:
        if column.position >= len(cells):
            return (
                f"cut off: {len(cells)} cells and no {column.name}; fetch the file "
                "again or complete the row"
            )
        cell = cells[column.position]
        if not _fits(cell, column):
            wanted = _WANTED[column.kind]
            return f"{column.name} is {cell[:40]!r}, not {wanted}; correct the cell"
    return ""


def _fits(cell: str, column: Column) -> bool:
    if not cell:
        return column.blank
    if column.kind == "text":
        return True
    try:
        value = int(cell) if column.kind == "integer" else float(cell)
    except ValueError:
        return False
    return math.isfinite(value) and abs(value) < 2**63


def records(path: Path, separator: str, width: int) -> list[list[str]]:
    """Rows of text of a small catalog file; UTF-8, or else Latin-1.

    Raises DataError where a row has fewer than ``width`` cells.
    """
    lines = text(path, fallback="latin-1").rstrip("\r\n").splitlines()
    rows = [line.split(separator) for line in lines]
    short = next((at for at, row in enumerate(rows) if len(row) < width), None)
    if short is not None:
        raise DataError(
            f"{path}, line {short + 1}: cut off: {len(rows[short])} cells where "
            f"{width} belong; fetch the file again or complete the row"
        )
    return rows
