"""MovieLens-1M: ratings, movies.dat, users.dat, and beside them NCF's protocol.

Items are numbered by first appearance in the ratings and users by id, as in the
files of He et al., Neural Collaborative Filtering (WWW 2017), so that those
files' ids need no translation.
"""

from dataclasses import replace
from pathlib import Path

from privfed.data.interactions import DataError, Interactions
from privfed.data.readers import ncf
from privfed.data.readers.catalogs import genres, with_movies, with_users
from privfed.data.readers.columns import Column, Layout, delimited
from privfed.data.readers.rows import Reading, assemble, stack
from privfed.data.readers.scales import WHOLE_STARS

_READING = Reading(users="number", items="appearance", scale=WHOLE_STARS)
_ORIGINAL = Layout(
    separator="::",
    columns=(
        Column("user", "integer", position=0),
        Column("item", "integer", position=1),
        Column("rating", "number", position=2),
        Column("time", "number", position=3),
    ),
    header=False,
)
_TABLE = Layout(
    separator=",",
    columns=(
        Column("user", "integer", source="user"),
        Column("item", "integer", source="item"),
        Column("rating", "number", source="rating"),
        Column("time", "number", source="timestamp", blank=True),
    ),
    header=True,
)
_FILES = {
    "ratings.dat": _ORIGINAL,
    "ratings.csv.gz": _TABLE,
    "ratings.csv": _TABLE,
}


def read(path: Path) -> Interactions:
    """The folder's ratings with titles, genres, demographics and NCF's split."""
    folder = path if path.is_dir() else path.parent
    name = next((name for name in _FILES if (folder / name).is_file()), None)
    if name is None:
        raise DataError(f"{folder}: none of {', '.join(_FILES)}; check the path")
    rows = stack([(folder / name, delimited(folder / name, _FILES[name]))])
    data = assemble("ml-1m", rows, _READING)
    facts = ("gender", "age", "occupation", "zip")
    data = with_users(data, folder / "users.dat", "::", facts)
    data = with_movies(data, folder / "movies.dat", "::", 3, _genre)
    held_out = folder / "ml-1m.test.rating"
    if not held_out.is_file():
        return data
    data = replace(data, part=ncf.held_out(held_out, data))
    negatives = folder / "ml-1m.test.negative"
    if not negatives.is_file():
        return data
    return replace(data, candidates=ncf.candidates(negatives, data))


def _genre(row: list[str]) -> str:
    return genres(row[2])
