"""Words about users and items, laid out in the order of a data set's ids."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from privfed.data.interactions import Interactions
from privfed.data.readers.columns import records

Words = Mapping[str, str]  # id -> words


def describe_items(data: Interactions, texts: Mapping[str, Words]) -> Interactions:
    """Add texts by item; an item that a catalog lacks has the empty text."""
    laid = {
        kind: tuple(words.get(item, "") for item in data.item_ids)
        for kind, words in texts.items()
        if words
    }
    return replace(data, texts={**data.texts, **laid})


def describe_users(data: Interactions, facts: Mapping[str, Words]) -> Interactions:
    """Add attributes by user; a user that a catalog lacks has the empty one."""
    laid = {
        kind: tuple(words.get(user, "") for user in data.user_ids)
        for kind, words in facts.items()
        if words
    }
    return replace(data, attributes={**data.attributes, **laid})


def with_users(
    data: Interactions, path: Path, separator: str, facts: Sequence[str]
) -> Interactions:
    """Add a catalog of users, if it is there: an id, then one field for each fact."""
    if not path.is_file():
        return data
    rows = records(path, separator, 1 + len(facts))
    return describe_users(
        data,
        {fact: {row[0]: row[at] for row in rows} for at, fact in enumerate(facts, 1)},
    )


def with_movies(
    data: Interactions,
    path: Path,
    separator: str,
    width: int,
    genre: Callable[[list[str]], str],
) -> Interactions:
    """Add a catalog of movies, if it is there: id, title, and what ``genre`` reads."""
    if not path.is_file():
        return data
    rows = records(path, separator, width)
    titles = {row[0]: row[1] for row in rows}
    return describe_items(
        data, {"title": titles, "genre": {row[0]: genre(row) for row in rows}}
    )


def words_by_id(table: pd.DataFrame, key: str, column: str) -> Words:
    """One column of a catalog by id."""
    return dict(zip(table[key].astype(str), table[column].astype(str), strict=True))


def genres(field: str) -> str:
    """``Comedy|Sci-Fi`` as words joined by a space."""
    return "" if field == "(no genres listed)" else field.replace("|", " ")
