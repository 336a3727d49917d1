"""GroupLens' newer sets (ml-latest-small, ml-20m, ml-25m): ratings.csv, movies.csv."""

from pathlib import Path

from privfed.data.interactions import Interactions
from privfed.data.readers.catalogs import describe_items, genres, words_by_id
from privfed.data.readers.columns import Column, Layout, delimited
from privfed.data.readers.rows import Reading, assemble, stack
from privfed.data.readers.scales import HALF_STARS

_RATINGS = Layout(
    separator=",",
    columns=(
        Column("user", "integer", source="userId"),
        Column("item", "integer", source="movieId"),
        Column("rating", "number", source="rating"),
        Column("time", "integer", source="timestamp"),
    ),
    header=True,
)
_MOVIES = Layout(
    separator=",",
    columns=(
        Column("item", "text", source="movieId"),
        Column("title", "text", source="title"),
        Column("genre", "text", source="genres"),
    ),
    header=True,
    quoted=True,
)


def read(path: Path) -> Interactions:
    """The folder's ratings on the half-star grid; items are those rated."""
    folder = path if path.is_dir() else path.parent
    ratings, movies = folder / "ratings.csv", folder / "movies.csv"
    rows = stack([(ratings, delimited(ratings, _RATINGS))])
    data = assemble(folder.name, rows, Reading(scale=HALF_STARS))
    if not movies.is_file():
        return data
    catalog = delimited(movies, _MOVIES)
    catalog["genre"] = catalog["genre"].map(genres)
    return describe_items(
        data,
        {
            "title": words_by_id(catalog, "item", "title"),
            "genre": words_by_id(catalog, "item", "genre"),
        },
    )
