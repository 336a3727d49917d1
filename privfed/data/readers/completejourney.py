"""The Complete Journey: a year of shopping of 2,469 households (84.51 degrees).

``transactions.parquet`` has a row for each product of each basket. The store that a
household goes to is a choice that it repeats; so are the categories it buys.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from privfed.data.interactions import DataError, Interactions
from privfed.data.readers.columns import Column
from privfed.data.readers.parquet import read_parquet
from privfed.data.readers.rows import Reading, assemble, stack
from privfed.errors import SettingsError

ITEMS = {"stores": "store_id", "products": "product_id", "categories": "product_id"}
_READING = Reading(repeats="keep")


def read(path: Path, items: str = "stores") -> Interactions:
    """One interaction for each basket and item: a store, product or category.

    A basket is one visit to one store. Times are the store's clock, read as UTC.
    """
    if items not in ITEMS:
        raise SettingsError(
            f"format completejourney: items is '{items}'; choose {', '.join(ITEMS)}"
        )
    folder = path if path.is_dir() else path.parent
    file = folder / "transactions.parquet"
    columns = (
        Column("user", "text", source="household_id"),
        Column("item", "text", source=ITEMS[items]),
        Column("basket", "text", source="basket_id"),
        Column("time", "text", source="transaction_timestamp"),
    )
    frame = read_parquet(file, columns)
    if items == "categories":
        frame["item"] = frame["item"].map(_categories(folder))
        frame = frame.dropna(subset="item")
    frame = frame.drop_duplicates(["user", "basket", "item"])
    frame = frame.assign(time=_seconds(file, frame["time"])).drop(columns="basket")
    return assemble("complete-journey", stack([(file, frame)]), _READING)


def _categories(folder: Path) -> "pd.Series[Any]":
    """Category by product; products of none are left out."""
    columns = (
        Column("product", "text", source="product_id"),
        Column("category", "text", source="product_category", blank=True),
    )
    frame = read_parquet(folder / "products.parquet", columns)
    frame = frame[~frame["category"].isin(["None", "nan"])].drop_duplicates("product")
    return frame.set_index("product")["category"]


def _seconds(file: Path, stamps: "pd.Series[Any]") -> "pd.Series[Any]":
    times = pd.to_datetime(stamps, errors="coerce", format="ISO8601")
    if times.isna().any():
        row = int(times.isna().to_numpy().argmax())
        raise DataError(
            f"{file}, row {row + 1}: {stamps.iloc[row]!r} is no time; correct the cell"
        )
    since = times - pd.Timestamp(0)
    return since.dt.total_seconds()
