"""Plain values (TOML, JSON, text) to frozen dataclasses and back.

A setting is a field that can be written down: numbers, words, yes or no, tuples of
them, or another such dataclass. Text is parsed; any other value must already have
the field's type.
"""

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from privfed.catalog import suggest
from privfed.errors import SettingsError

T = TypeVar("T")
_PLAIN = (int, float, str, bool, Path, NoneType)
_FINITE = ConfigDict(allow_inf_nan=False)


def settings(cls: type[Any]) -> Mapping[str, Any]:
    """The type of each setting of a dataclass, by name."""
    hints = get_type_hints(cls)
    return {
        field.name: hints[field.name]
        for field in fields(cls)
        if field.init and (is_dataclass(hints[field.name]) or _plain(hints[field.name]))
    }


def _plain(hint: Any) -> bool:
    origin = get_origin(hint)
    if origin is Literal:
        return True
    if origin in (Union, UnionType, tuple):
        return all(arg is Ellipsis or _plain(arg) for arg in get_args(hint))
    return hint in _PLAIN


def build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Make a dataclass of plain values.

    Raises SettingsError, naming ``where`` and the key, for an unknown, missing or
    impossible setting.
    """
    hints = settings(cls)
    for name in values:
        if name not in hints:
            raise SettingsError(f"{where}: no setting {name!r}{suggest(name, hints)}")
    for field in fields(cls):  # type: ignore[arg-type]
        if field.name in hints and field.name not in values and _required(field):
            raise SettingsError(f"{where}: {field.name} must be given")
    parsed = {name: parse(hints[name], v, where, name) for name, v in values.items()}
    try:
        return cls(**parsed)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from error


def _required(field: "Field[Any]") -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def parse(hint: Any, value: Any, where: str, name: str) -> Any:
    """One setting's value as its type; raises SettingsError naming the key."""
    if is_dataclass(hint):
        return build(hint, table(hint, value, name), name)  # type: ignore[arg-type]
    if isinstance(value, str):
        if value.lower() == "none" and NoneType in get_args(hint):
            return None
        if get_origin(hint) is tuple:
            value = value.replace("+", ",").split(",") if value else ()
            return _validate(hint, tuple(value), where, name, strict=False)
        return _validate(hint, value, where, name, strict=False)
    if isinstance(value, list):
        value = tuple(value)
    return _validate(hint, value, where, name, strict=True)


def table(cls: type[Any], value: Any, name: str) -> Mapping[str, Any]:
    """A section's settings; one word alone is its first setting."""
    if isinstance(value, str):
        return {next(iter(settings(cls))): value}
    if not isinstance(value, Mapping):
        raise SettingsError(f"{name}: write a table of settings, not {value!r}")
    return value


def _validate(hint: Any, value: Any, where: str, name: str, strict: bool) -> Any:
    try:
        adapter = TypeAdapter(hint, config=_FINITE)
        return adapter.validate_python(value, strict=strict)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Input ")
        raise SettingsError(f"{where}: {name} {reason}, got {value!r}") from None


def plain(value: Any) -> dict[str, Any]:
    """A dataclass's settings as TOML types; what is None is left out."""
    found: dict[str, Any] = {}
    for name, hint in settings(type(value)).items():
        inner = getattr(value, name)
        if is_dataclass(hint):
            found[name] = plain(inner)
        elif inner is None:
            found |= _written_none(type(value), name)
        else:
            found[name] = _written(inner)
    return found


def _written(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _written_none(cls: type[Any], name: str) -> dict[str, str]:
    default = next(field.default for field in fields(cls) if field.name == name)
    return {} if default is None else {name: "none"}
