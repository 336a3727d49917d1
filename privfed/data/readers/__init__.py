"""Reading interactions: one door, a format for each family of files."""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from privfed.data.formats import FORMATS
from privfed.data.interactions import DataError, Interactions
from privfed.data.readers.detect import detect
from privfed.errors import SettingsError

__all__ = ["FORMATS", "read"]

Option = str | float


def read(path: Path, format: str = "auto") -> Interactions:
    """Interactions from a file or folder.

    ``format`` is ``auto`` or a name of ``FORMATS``, with that reader's options
    after a colon: ``table:user=customer,item=sku,repeats=drop``. Raises DataError
    with the file, the line and the mend where the data is unusable.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; check the path")
    name, _, given = format.partition(":")
    if name == "auto":
        name = detect(path)
    if name not in FORMATS:
        raise SettingsError(f"format: no '{name}'{_hint(name, FORMATS)}")
    reader = import_module(f"privfed.data.readers.{name.replace('-', '_')}").read
    return _checked(path, reader(path, **_options(name, reader, given)))


def _options(
    name: str, reader: Callable[..., Interactions], given: str
) -> dict[str, Option]:
    """What stands after the colon, as the reader's keyword arguments."""
    known = inspect.signature(reader).parameters
    options: dict[str, Option] = {}
    for pair in filter(None, given.split(",")):
        key, equals, value = pair.partition("=")
        if not equals or key == "path" or key not in known:
            raise SettingsError(
                f"format {name}: no option '{key}'{_hint(key, list(known)[1:])}"
            )
        options[key] = _option(name, key, value)
    return options


def _option(name: str, key: str, value: str) -> Option:
    if key == "repeats" and value not in ("refuse", "keep", "drop"):
        raise SettingsError(
            f"format {name}: repeats is '{value}'; choose refuse, keep or drop"
        )
    if key not in ("low", "high"):
        return value
    try:
        return float(value)
    except ValueError as error:
        raise SettingsError(
            f"format {name}: {key} is '{value}', not a number"
        ) from error


def _hint(word: str, known: "Mapping[str, str] | list[str]") -> str:
    close = get_close_matches(word, known, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; choose from {', '.join(known)}" if known else "; it takes none"


def _checked(path: Path, data: Interactions) -> Interactions:
    """Data with at least one interaction."""
    if not len(data):
        raise DataError(f"{path}: no interactions; check the path and the format")
    return data
