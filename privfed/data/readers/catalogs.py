"""Words about users and items, laid out in the order of a data set's ids."""

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from privfed.data.interactions import Interactions

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


def words_by_id(table: pd.DataFrame, key: str, column: str) -> Words:
    """One column of a catalog by id."""
    return dict(zip(table[key].astype(str), table[column].astype(str), strict=True))


def genres(field: str) -> str:
    """``Comedy|Sci-Fi`` as words joined by a space."""
    return "" if field == "(no genres listed)" else field.replace("|", " ")
