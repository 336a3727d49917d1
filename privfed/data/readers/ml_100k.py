"""MovieLens-100K: u.data, u.item, u.user; beside them overviews and posters.

Harper and Konstan, The MovieLens Datasets, TiiS 5(4), 2015.
"""

import csv
from dataclasses import replace
from pathlib import Path

from privfed.data.interactions import DataError, Interactions
from privfed.data.readers.catalogs import describe_items, with_movies, with_users
from privfed.data.readers.columns import Column, Layout, delimited
from privfed.data.readers.files import text
from privfed.data.readers.images import images_beside
from privfed.data.readers.rows import Reading, assemble, stack
from privfed.data.readers.scales import WHOLE_STARS

RATINGS = Layout(
    separator="\t",
    columns=(
        Column("user", "integer", position=0),
        Column("item", "integer", position=1),
        Column("rating", "number", position=2),
        Column("time", "integer", position=3),
    ),
    header=False,
)
_FIRST_FLAG = 5  # u.item: id, title, release, video release, url, 19 flags
_GENRE_LINE = (
    "unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|"
    "Fantasy|Film-Noir|Horror|Musical|Mystery|Romance|Sci-Fi|Thriller|War|Western"
)
_GENRES = tuple(_GENRE_LINE.split("|"))


def read(path: Path) -> Interactions:
    """The folder's ratings, with all that lies beside them."""
    folder = path if path.is_dir() else path.parent
    rows = stack([(folder / "u.data", delimited(folder / "u.data", RATINGS))])
    data = assemble("ml-100k", rows, Reading(scale=WHOLE_STARS))
    facts = ("age", "gender", "occupation", "zip")
    data = with_users(data, folder / "u.user", "|", facts)
    width = _FIRST_FLAG + len(_GENRES)
    data = with_movies(data, folder / "u.item", "|", width, _flagged)
    data = _with_overviews(data, folder / "tmdb_items.csv")
    posters = images_beside(folder)
    images = {
        at: posters[item] for at, item in enumerate(data.item_ids) if item in posters
    }
    return replace(data, images=images)


def _flagged(row: list[str]) -> str:
    flags = zip(_GENRES, row[_FIRST_FLAG:], strict=False)
    return " ".join(genre for genre, flag in flags if flag == "1")


def _with_overviews(data: Interactions, path: Path) -> Interactions:
    if not path.is_file():
        return data
    rows = csv.DictReader(text(path).splitlines(keepends=True))
    if not {"movie_id", "overview"} <= set(rows.fieldnames or ()):
        raise DataError(
            f"{path}, line 1: no columns movie_id and overview; add them or move "
            "the file away"
        )
    overviews = {row["movie_id"]: row["overview"] or "" for row in rows}
    return describe_items(data, {"overview": overviews})
