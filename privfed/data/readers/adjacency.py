"""Adjacency lists, ``user item item ...`` a line: train, [validation,] test files.

The format of LightGCN's and of many attacks' repositories. Ids are indices, pairs
may repeat (and are kept, as those repositories do); a user without items is an
error in training and a user without held-out items elsewhere.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from privfed.data.interactions import TEST, TRAIN, VALIDATION, DataError, Interactions
from privfed.data.readers.files import content, first_line
from privfed.data.readers.rows import Reading, assemble, stack

SUFFIXES = (".txt", ".dat")
STEMS = {
    "train": TRAIN,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "val": VALIDATION,
    "test": TEST,
}
_READING = Reading(users="index", items="index", repeats="keep")
_NEWLINE = ord("\n")
_LONGEST = 18  # digits of an int64


def read(path: Path) -> Interactions:
    """The lists of a folder with the split of its files, or one file unsplit."""
    if path.is_file():
        rows = stack([(path, lists(path, users_may_be_empty=False))])
        return assemble(path.stem, rows, _READING)
    files = split_files(path)
    if TRAIN not in files.values():
        raise DataError(f"{path}: no train.txt or train.dat; check the path")
    frames = [
        (file, lists(file, part != TRAIN).assign(part=part))
        for file, part in files.items()
    ]
    return assemble(path.name, stack(frames), _READING)


def split_files(folder: Path) -> dict[Path, int]:
    """Files of a folder that hold a part of the data each."""
    named = {
        folder / f"{stem}{suffix}": part
        for stem, part in STEMS.items()
        for suffix in SUFFIXES
    }
    return {file: part for file, part in named.items() if file.is_file()}


def looks_like(path: Path) -> bool:
    """Whether a file's first line is whole numbers with spaces between."""
    words = first_line(path).split(" ")
    return len(words) > 1 and all(word.isdigit() for word in words if word)


def lists(path: Path, users_may_be_empty: bool) -> pd.DataFrame:
    """Columns user, item, line of one file."""
    data = content(path).rstrip() + b"\n"
    byte = np.frombuffer(data, dtype=np.uint8)
    start, line = _words(path, byte)
    number = np.fromstring(data.decode("ascii"), dtype=np.int64, sep=" ")
    per_line = np.bincount(line, minlength=int(line[-1]) + 1)
    _check_lines(path, per_line, number[start], users_may_be_empty)
    user = np.repeat(number[start], per_line - 1)
    items = np.ones(len(number), dtype=bool)
    items[start] = False
    return pd.DataFrame({"user": user, "item": number[items], "line": line[items] + 1})


def _words(
    path: Path, byte: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which word begins each line that has words, and the line of each word."""
    digit = (byte >= ord("0")) & (byte <= ord("9"))
    strange = np.flatnonzero(~digit & ~np.isin(byte, tuple(b" \t\r\n")))
    if len(strange):
        line = int(np.count_nonzero(byte[: strange[0]] == _NEWLINE)) + 1
        raise DataError(
            f"{path}, line {line}: {chr(byte[strange[0]])!r} where only whole "
            "numbers and spaces belong; correct the line"
        )
    edges = np.flatnonzero(np.diff(digit, prepend=False, append=False))
    begins, ends = edges[::2], edges[1::2]
    lines = np.cumsum(byte == _NEWLINE)[begins]
    too_long = np.flatnonzero(ends - begins > _LONGEST)
    if len(too_long):
        raise DataError(
            f"{path}, line {lines[too_long[0]] + 1}: a number of over {_LONGEST} "
            "digits; number users and items from 0"
        )
    first = np.flatnonzero(np.diff(lines, prepend=-1))
    return first, lines


def _check_lines(
    path: Path,
    per_line: NDArray[np.int64],
    users: NDArray[np.int64],
    users_may_be_empty: bool,
) -> None:
    """Refuse blank lines and, in training, users without items."""
    blank = np.flatnonzero(per_line == 0)
    if len(blank):
        raise DataError(f"{path}, line {blank[0] + 1}: the line is empty; delete it")
    alone = np.flatnonzero(per_line == 1)
    if len(alone) and not users_may_be_empty:
        raise DataError(
            f"{path}, line {alone[0] + 1}: user {users[alone[0]]} has no items; "
            "remove the line or complete it"
        )
