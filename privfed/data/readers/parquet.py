"""Parquet tables, typed as the delimited ones are."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from privfed.data.interactions import DataError
from privfed.data.readers.columns import Column
from privfed.data.readers.files import MAX_BYTES
from privfed.errors import MissingExtra

MAX_ROWS = 500_000_000


def header(path: Path) -> list[str]:
    """Names of the columns."""
    return list(_open(path).schema_arrow.names)


def read_parquet(path: Path, columns: tuple[Column, ...]) -> pd.DataFrame:
    """The columns asked for, and ``line``, the row counted from 1.

    Raises DataError where the file is damaged, a column is missing, a cell is
    empty or a number is not finite; MissingExtra without pyarrow.
    """
    names = header(path)
    for column in columns:
        if column.source not in names:
            raise DataError(
                f"{path}: no column '{column.source}' among {', '.join(names)[:200]}; "
                "say which it is"
            )
    frame = _frame(path, [column.source for column in columns])
    typed = {c.name: _typed(path, frame[c.source], c) for c in columns}
    return pd.DataFrame(typed).assign(line=np.arange(1, len(frame) + 1))


def _frame(path: Path, names: list[str]) -> pd.DataFrame:
    file = _open(path)
    from pyarrow import ArrowException

    try:
        frame: pd.DataFrame = file.read(names).to_pandas(ignore_metadata=True)
    except (ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        raise _damaged(path, error) from error
    return frame


def _open(path: Path) -> Any:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise MissingExtra("pyarrow", "report", "reading parquet") from error
    try:
        file = ParquetFile(path)
        file.schema_arrow.names  # noqa: B018 - damaged names show only when read
    except (ArrowException, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    groups = range(file.metadata.num_row_groups)
    size = sum(file.metadata.row_group(at).total_byte_size for at in groups)
    if size > MAX_BYTES or file.metadata.num_rows > MAX_ROWS:
        raise DataError(f"{path}: larger than 2 GiB unpacked; split it")
    return file


def _damaged(path: Path, error: BaseException) -> DataError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
    return DataError(f"{path}: damaged parquet ({reason}); fetch it again")


def _typed(path: Path, cells: "pd.Series[Any]", column: Column) -> "pd.Series[Any]":
    missing = cells.isna()
    if bool(missing.any()) and not column.blank:
        row = int(np.argmax(missing.to_numpy())) + 1
        raise DataError(f"{path}, row {row}: no {column.name}; complete the row")
    if column.kind == "text":
        return cells.astype(str)
    numbers = pd.to_numeric(cells, errors="coerce").astype(np.float64)
    wrong = (numbers.isna() & ~missing) | np.isinf(numbers)
    if bool(wrong.any()):
        at = int(np.argmax(wrong.to_numpy()))
        raise DataError(
            f"{path}, row {at + 1}: {column.name} is {cells.iloc[at]!r}, not a finite "
            "number; correct the cell"
        )
    return numbers
