"""FedMR's preprocessed NineRec sets (KU, ...): inter.csv and feature matrices.

``split_label`` 0, 1, 2 is training, validation, test. Ids are indices. The files
repeat a few pairs, and published results count them, so they are kept.
"""

from dataclasses import replace
from pathlib import Path

from privfed.data.interactions import Interactions
from privfed.data.readers.arrays import matrix
from privfed.data.readers.columns import Column, Layout, delimited
from privfed.data.readers.parts import check_parts
from privfed.data.readers.rows import Reading, assemble, stack

_INTERACTIONS = Layout(
    separator=",",
    columns=(
        Column("user", "integer", source="userID"),
        Column("item", "integer", source="itemID"),
        Column("time", "integer", source="timestamp"),
        Column("part", "integer", source="split_label"),
    ),
    header=True,
)
_READING = Reading(users="index", items="index", repeats="keep")


def read(path: Path) -> Interactions:
    """The folder's interactions, split and features; implicit."""
    folder = path if path.is_dir() else path.parent
    rows = stack(
        [(folder / "inter.csv", delimited(folder / "inter.csv", _INTERACTIONS))]
    )
    check_parts(rows)
    data = assemble(folder.name, rows, _READING)
    features = {
        file.name.removesuffix("_features.npy"): matrix(file, data.items)
        for file in sorted(folder.glob("*_features.npy"))
    }
    return replace(data, features=features)
