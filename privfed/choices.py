"""Parts as users write them: ``name:key=value,key=value``, or a TOML table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Generic, TypeVar

from privfed.built_in import Kind
from privfed.catalog import entries, find, lookup, suggest
from privfed.errors import SettingsError
from privfed.fields import build, plain

T = TypeVar("T")


@dataclass(frozen=True)
class Chosen(Generic[T]):
    """A part that a run uses: its name in the catalog, and the part itself.

    ``preset`` holds the settings that come with the name.
    """

    name: str
    part: T
    preset: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> str:
        """The part as an option has it: its name, and what the name does not say."""
        default = {f.name: f.default for f in fields(self.part)}  # type: ignore[arg-type]
        default |= self.preset
        changed = [
            f"{name}={_word(value)}"
            for name, value in self._settings().items()
            if getattr(self.part, name) != default[name]
        ]
        return f"{self.name}:{','.join(changed)}" if changed else self.name

    def row(self) -> dict[str, Any]:
        """The part as a TOML table, defaults too."""
        return {"name": self.name, **self._settings()}

    def _settings(self) -> dict[str, Any]:
        """All settings; an absent one is none, which the name may not mean."""
        return {**dict.fromkeys(self.preset, "none"), **plain(self.part)}


def _word(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(_word, value))
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def choose(kind: Kind, given: Any) -> Chosen[Any]:
    """The part that a spec or a table (its ``name`` and settings) asks for.

    Raises SettingsError that names the part and the key.
    """
    name, entry = lookup(kind, name_in(kind, given))
    values = {**entry.preset, **_values(kind, given)}
    part = build(find(kind, name), values, f"{kind} {name}")
    return Chosen(name, part, entry.preset)


def choose_all(kind: Kind, given: Sequence[Any]) -> tuple[Chosen[Any], ...]:
    """Several parts of a kind. Raises SettingsError where a name comes twice."""
    chosen = tuple(choose(kind, one) for one in given)
    names = [one.name for one in chosen]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"{kind} {name}: given twice; give it once")
    return chosen


def listed(kind: Kind, given: Any) -> Sequence[Any]:
    """What was given for a kind, as a list; ``none`` alone is an empty one.

    ``all`` is every part of the kind that nothing else was given for: ``all`` beside
    ``inversion:victims=8`` sets that one. Of poisoners a run takes one, so ``all``
    attacks are all that only watch.
    """
    several = given if isinstance(given, list | tuple) else [given]
    if list(several) == ["none"]:
        return []
    if "none" in several:
        raise SettingsError(f"{kind}: none stands alone; leave it out, or the others")
    return _every(kind, several) if kind == "attack" and "all" in several else several


def _every(kind: Kind, several: Sequence[Any]) -> Sequence[Any]:
    """All parts of a kind, those given with their settings in place of the names."""
    given = [one for one in several if one != "all"]
    beside = [one for one in given if is_poisoner(one)]
    named = {
        lookup(kind, name_in(kind, one))[0]: one for one in given if one not in beside
    }
    return [*(named.get(name, name) for name in entries(kind)), *beside]


def is_channel(given: Any) -> bool:
    """Whether a ``--defense`` names a channel rather than a defense.

    Raises SettingsError where it names neither.
    """
    return _is("channel", "defense", given)


def is_poisoner(given: Any) -> bool:
    """Whether an ``--attack`` names a poisoner rather than one that only watches.

    Raises SettingsError where it names neither.
    """
    return _is("poisoner", "attack", given)


def _is(kind: Kind, asked: Kind, given: Any) -> bool:
    """Whether what is given for one kind names a part of another."""
    name = name_in(asked, given)
    spelled = name.replace("-", "_")
    known = {**entries(asked), **entries(kind)}
    if not known.keys() & {name, spelled}:
        raise SettingsError(f"{asked}: no {name!r}{suggest(spelled, known)}")
    return bool(entries(kind).keys() & {name, spelled})


def name_in(kind: Kind, given: Any) -> str:
    """The name in a spec or table; raises SettingsError where there is none."""
    name = given.get("name") if isinstance(given, Mapping) else given
    if not isinstance(name, str):
        raise SettingsError(f"{kind}: write a name, or a table with one, not {given!r}")
    return name if isinstance(given, Mapping) else name.partition(":")[0].strip()


def _values(kind: Kind, given: Any) -> Mapping[str, Any]:
    """The settings in a spec, as text, or in a table."""
    if isinstance(given, Mapping):
        return {key: value for key, value in given.items() if key != "name"}
    name, _, tail = given.partition(":")
    found: dict[str, str] = {}
    for pair in filter(None, tail.split(",")):
        key, equals, value = (word.strip() for word in pair.partition("="))
        if not equals or not key:
            raise SettingsError(f"{kind} {name}: write key=value, not {pair!r}")
        if key in found:
            raise SettingsError(f"{kind} {name}: {key} is given twice")
        found[key] = value
    return found
