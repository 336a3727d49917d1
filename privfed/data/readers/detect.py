"""Telling a format by the names of files and, where they say little, a first line."""

from pathlib import Path

from privfed.data.interactions import DataError
from privfed.data.readers import adjacency, tsv
from privfed.data.readers.files import first_line
from privfed.data.readers.steam_200k import purchases_folder
from privfed.data.readers.table import SUFFIXES


def detect(path: Path) -> str:
    """The name of the format. Raises DataError where no format fits."""
    found = _folder(path) if path.is_dir() else _file(path)
    if found:
        return found
    raise DataError(
        f"{path}: no known format; name it with --format (see: privfed data list)"
    )


def _folder(folder: Path) -> str:
    names = {entry.name for entry in folder.iterdir()}
    tables = [name for name in names if name.endswith(SUFFIXES)]
    rules = (
        ("ml-100k", "u.data" in names),
        ("ml-1m", bool(names & {"movies.dat", "users.dat"})),
        ("ml-csv", {"ratings.csv", "movies.csv"} <= names),
        ("ku", "inter.csv" in names),
        ("recbole", any(name.endswith(".inter") for name in names)),
        ("tsv", bool(tsv.split_files(folder))),
        ("steam-200k", "steam-200k.csv" in names or bool(purchases_folder(folder))),
        ("plays", "shakespeare.txt" in names),
        ("completejourney", "transactions.parquet" in names),
        ("adjacency", bool(adjacency.split_files(folder))),
        ("table", len(tables) == 1),
    )
    fitting = next((name for name, fits in rules if fits), "")
    if not fitting and "ratings.dat" in names:
        return _file(folder / "ratings.dat")
    return fitting


def _file(file: Path) -> str:
    line = first_line(file)
    rules = (
        ("ml-100k", file.name == "u.data"),
        ("recbole", file.suffix == ".inter"),
        ("steam-200k", file.name == "steam-200k.csv"),
        ("table", file.name.endswith(SUFFIXES)),
        ("plays", "@" in line and line.count("\t") == 2),
        ("ml-1m", "::" in line),
        ("amazon", line.count(",") == 3),
        ("tsv", line.count("\t") in (2, 3)),
        ("adjacency", adjacency.looks_like(file)),
    )
    return next((name for name, fits in rules if fits), "")
