"""Parts by their names, privfed's own and those of other packages.

Listing imports none of them.

Other packages add parts by entry points in the groups ``privfed.methods``,
``privfed.defenses``, ``privfed.channels``, ``privfed.attacks`` and
``privfed.encoders``: the name, then ``module:Class``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from privfed.built_in import BUILT_IN, KINDS, Entry, Kind
from privfed.errors import SettingsError


def entries(kind: Kind) -> Mapping[str, Entry]:
    """All parts of a kind by name: privfed's own, then those of other packages.

    Raises SettingsError where another package takes a name that is in use.
    """
    found = dict(BUILT_IN[kind])
    for point in entry_points(group=f"privfed.{kind}s"):
        if point.name in found:
            raise SettingsError(
                f"{kind} {point.name}: {_origin(point)} adds a name that is in use; "
                "uninstall it, or have it renamed"
            )
        found[point.name] = Entry(point.value, f"from {_origin(point)}")
    return found


def _origin(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.module


def lookup(kind: Kind, name: str) -> tuple[str, Entry]:
    """A part's name as the catalog spells it, and its row.

    Raises SettingsError, with the nearest name, where there is none.
    """
    known = entries(kind)
    spelled = name.replace("-", "_") if name not in known else name
    if spelled not in known:
        raise SettingsError(f"{kind}: no {name!r}{suggest(spelled, known)}")
    return spelled, known[spelled]


def find(kind: Kind, name: str) -> type[Any]:
    """The class of a part; raises SettingsError where the name is unknown."""
    name, entry = lookup(kind, name)
    module, _, attribute = entry.target.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"{kind} {name}: cannot load it: {error}") from error
    if not (isinstance(found, type) and is_dataclass(found)):
        raise SettingsError(f"{kind} {name}: {entry.target} is no frozen dataclass")
    return found


def name_of(part: object) -> str:
    """What the catalog calls a part; its class where no row is of that class.

    Of several rows of one class, the one of whose settings the part has most.
    """
    target = f"{type(part).__module__}:{type(part).__qualname__}"
    fits = {
        name: all(getattr(part, k, None) == v for k, v in entry.preset.items())
        and len(entry.preset)
        for kind in KINDS
        for name, entry in entries(kind).items()
        if entry.target == target
    }
    return max(fits, key=lambda name: fits[name], default=type(part).__name__)


def suggest(word: str, known: Iterable[str]) -> str:
    """The end of a "no such name" message: the nearest name, or all of them."""
    names = sorted(known)
    near = get_close_matches(word, names, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there is {', '.join(names)}" if names else ""
