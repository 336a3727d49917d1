"""RecBole's atomic files: ``.inter`` and, beside it, ``.item`` and ``.user``.

Tab-separated, with a header of ``name:type``. Zhao et al., RecBole, CIKM 2021.
"""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from privfed.data.interactions import DataError, Interactions
from privfed.data.readers.catalogs import (
    Words,
    describe_items,
    describe_users,
    words_by_id,
)
from privfed.data.readers.columns import Column, Layout, delimited
from privfed.data.readers.files import first_line
from privfed.data.readers.rows import Reading, Repeats, assemble, stack
from privfed.data.readers.scales import infer_scale

_INTERACTION = {
    "user_id": ("user", "text"),
    "item_id": ("item", "text"),
    "rating": ("rating", "number"),
    "timestamp": ("time", "number"),
}
_TEXTS = {
    "title": "title",
    "movie_title": "title",
    "name": "title",
    "class": "genre",
    "genre": "genre",
    "genres": "genre",
    "categories": "genre",
    "description": "overview",
}
_ATTRIBUTES = {
    "age": "age",
    "gender": "gender",
    "occupation": "occupation",
    "zip_code": "zip",
}


def read(path: Path, repeats: Repeats = "refuse") -> Interactions:
    """The interactions of a ``.inter`` file or of the only one in a folder."""
    inter = path if path.is_file() else _only(path)
    frame = _columns(inter, {name: name for name in _INTERACTION})
    renamed = {name: short for name, (short, _) in _INTERACTION.items()}
    frame = frame.rename(columns=renamed)
    data = assemble(inter.stem, stack([(inter, frame)]), Reading(repeats=repeats))
    if data.rating is not None:
        scale = infer_scale(frame["rating"])
        data = replace(data, scale=scale, rating=data.rating if scale else None)
    data = describe_items(data, _words(inter.with_suffix(".item"), "item_id", _TEXTS))
    users = inter.with_suffix(".user")
    return describe_users(data, _words(users, "user_id", _ATTRIBUTES))


def _only(folder: Path) -> Path:
    found = sorted(folder.glob("*.inter"))
    if len(found) != 1:
        raise DataError(
            f"{folder}: {len(found)} .inter files where one belongs; name the file"
        )
    return found[0]


def _columns(path: Path, wanted: dict[str, str]) -> pd.DataFrame:
    """The columns of a file that are wanted, named by the header's bare names."""
    header = first_line(path).lstrip("\ufeff").split("\t")
    present = [typed for typed in header if typed.split(":")[0] in wanted]
    columns = tuple(_column(typed) for typed in present)
    missing = {"user_id", "item_id"} & set(wanted) - {c.name for c in columns}
    if missing:
        raise DataError(
            f"{path}, line 1: no column '{min(missing)}:token'; rename one to it"
        )
    return delimited(path, Layout("\t", columns, header=True))


def _column(typed: str) -> Column:
    name = typed.split(":")[0]
    if name in ("rating", "timestamp"):
        return Column(name, "number", source=typed, blank=name == "timestamp")
    blank = name not in ("user_id", "item_id")
    return Column(name, "text", source=typed, blank=blank)


def _words(path: Path, key: str, wanted: dict[str, str]) -> dict[str, Words]:
    """Words by id of each kind that a catalog file has."""
    if not path.is_file():
        return {}
    frame = _columns(path, {key: key, **wanted}).fillna("")
    return {
        wanted[column]: words_by_id(frame, key, column)
        for column in frame.columns
        if column in wanted
    }
