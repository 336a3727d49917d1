"""Tab-separated ``user item rating [time]`` without a header, in one file or three.

MetaMF's layout (Lin et al., SIGIR 2020): ``<name>.train.rating``,
``<name>.valid.rating``, ``<name>.test.rating``.
"""

from dataclasses import replace
from pathlib import Path

from privfed.data.interactions import TEST, TRAIN, VALIDATION, DataError, Interactions
from privfed.data.readers.columns import Column, Layout, delimited
from privfed.data.readers.files import first_line
from privfed.data.readers.rows import Reading, Repeats, assemble, stack
from privfed.data.readers.scales import infer_scale

PARTS = {
    ".train.rating": TRAIN,
    ".valid.rating": VALIDATION,
    ".val.rating": VALIDATION,
    ".test.rating": TEST,
}
_COLUMNS = (
    Column("user", "text", position=0),
    Column("item", "text", position=1),
    Column("rating", "number", position=2),
    Column("time", "number", position=3, blank=True),
)


def read(path: Path, repeats: Repeats = "refuse") -> Interactions:
    """The folder's three files with their split, or one file unsplit."""
    if path.is_file():
        name, rows = path.stem, stack([(path, delimited(path, layout(path)))])
    else:
        files = split_files(path)
        if TRAIN not in files.values():
            raise DataError(f"{path}: no file named *.train.rating; check the path")
        name = next(iter(files)).name.split(".")[0]
        rows = stack(
            [(at, delimited(at, layout(at)).assign(part=p)) for at, p in files.items()]
        )
    scale = infer_scale(rows.frame["rating"])
    data = assemble(name, rows, Reading(repeats=repeats))
    return replace(data, scale=scale, rating=data.rating if scale else None)


def split_files(folder: Path) -> dict[Path, int]:
    """Files of a folder that hold a part of the data each."""
    return {
        file: part
        for suffix, part in PARTS.items()
        for file in sorted(folder.glob(f"*{suffix}"))[:1]
    }


def layout(path: Path) -> Layout:
    """Three columns or four, as the first line has them."""
    width = min(max(first_line(path).count("\t") + 1, 3), len(_COLUMNS))
    return Layout("\t", _COLUMNS[:width], header=False)
