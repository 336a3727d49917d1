"""Steam-200K purchases: Kaggle's steam-200k.csv, or its renumbered .dat files.

Implicit and undated. A purchase that the log repeats is one purchase.
"""

from pathlib import Path

import numpy as np

from privfed.data.interactions import DataError, Interactions
from privfed.data.readers.catalogs import describe_items, words_by_id
from privfed.data.readers.columns import Column, Layout, delimited
from privfed.data.readers.rows import Reading, assemble, stack

_LOG = Layout(
    separator=",",
    columns=(
        Column("user", "integer", position=0),
        Column("item", "text", position=1),
        Column("behavior", "text", position=2),
    ),
    header=False,
    quoted=True,
)
_PURCHASES = Layout(
    separator="\t",
    columns=(
        Column("user", "integer", source="User_ID"),
        Column("item", "integer", source="Game_ID"),
    ),
    header=True,
)
_GAMES = Layout(
    separator="\t",
    columns=(
        Column("item", "text", source="Game_ID"),
        Column("title", "text", source="Game Name"),
    ),
    header=True,
)
_READING = Reading(repeats="drop")


def read(path: Path) -> Interactions:
    """Who bought what, with titles."""
    log = path / "steam-200k.csv" if path.is_dir() else path
    if log.suffix == ".csv" and log.is_file():
        return _log(log)
    folder = purchases_folder(path)
    if folder is None:
        raise DataError(
            f"{path}: neither steam-200k.csv nor game_purchase.dat; check the path"
        )
    return _renumbered(folder)


def purchases_folder(path: Path) -> Path | None:
    """Where game_purchase.dat lies: here or in ``steam/``."""
    here = path if path.is_dir() else path.parent
    places = (here, here / "steam")
    return next((at for at in places if (at / "game_purchase.dat").is_file()), None)


def _log(path: Path) -> Interactions:
    frame = delimited(path, _LOG)
    known = frame["behavior"].isin(("purchase", "play"))
    if not known.all():
        at = int(np.argmin(known.to_numpy()))
        raise DataError(
            f"{path}, line {frame['line'].iloc[at]}: behavior "
            f"{frame['behavior'].iloc[at]!r} is neither purchase nor play; correct it"
        )
    bought = frame[frame["behavior"] == "purchase"]
    data = assemble("steam-200k", stack([(path, bought)]), _READING)
    return describe_items(data, {"title": {title: title for title in data.item_ids}})


def _renumbered(folder: Path) -> Interactions:
    purchases, games = folder / "game_purchase.dat", folder / "item_info.dat"
    rows = stack([(purchases, delimited(purchases, _PURCHASES))])
    data = assemble("steam-200k", rows, _READING)
    if not games.is_file():
        return data
    titles = words_by_id(delimited(games, _GAMES), "item", "title")
    return describe_items(data, {"title": titles})
