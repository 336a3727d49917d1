"""All that a run is told: options and study files to one frozen value, and back."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import tomlkit

from privfed import fields
from privfed.adversary import Attack
from privfed.catalog import suggest
from privfed.choices import (
    Chosen,
    choose,
    choose_all,
    is_channel,
    is_poisoner,
    listed,
    name_in,
)
from privfed.data.load import DataSettings
from privfed.errors import SettingsError
from privfed.evaluation.protocol import Protocol
from privfed.interfaces import Channel, Defense, Method
from privfed.machine import Machine, parse_bytes
from privfed.party import Malicious, Party
from privfed.poisoning import Poisoner
from privfed.sampling import Sampling

_LEAST = {"rounds": 1, "seed": 0, "seeds": 1, "patience": 0, "checkpoint_every": 1}


@dataclass(frozen=True)
class RunSettings:
    """Everything about a run; ``machine`` and ``out`` change no result.

    ``seeds`` runs are made, with seeds ``seed``, ``seed + 1``, ... ``patience``
    counts the evaluations without a better validation score after which a run ends
    early; 0 never ends it.
    """

    method: Chosen[Method]
    defense: tuple[Chosen[Defense], ...]
    channel: Chosen[Channel]
    attack: tuple[Chosen[Attack], ...]
    poisoner: Chosen[Poisoner] | None = None
    malicious: Malicious = field(default_factory=Malicious)
    data: DataSettings = field(default_factory=DataSettings)
    sampling: Sampling = field(default_factory=Sampling)
    protocol: Protocol = field(default_factory=Protocol)
    machine: Machine = field(default_factory=Machine)
    rounds: int = 30
    seed: int = 0
    seeds: int = 1
    patience: int = 0
    checkpoint_every: int = 10
    out: Path = Path("runs")

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")

    def plain(self) -> dict[str, Any]:
        """All settings, defaults too, as TOML and JSON types."""
        return {
            **fields.plain(self),
            "method": self.method.row(),
            "defense": [one.row() for one in self.defense],
            "channel": self.channel.row(),
            "attack": [one.row() for one in self.attacks],
        }

    @property
    def attacks(self) -> tuple[Chosen[Any], ...]:
        """Those that watch, then the one that poisons."""
        return (*self.attack, *([self.poisoner] if self.poisoner else []))

    @property
    def party(self) -> Party | None:
        """The malicious clients, where there are any."""
        if self.poisoner is None:
            return None
        return Party(**vars(self.malicious), poisoner=self.poisoner.part)

    def to_toml(self) -> str:
        """All settings as a study file that gives exactly this run again."""
        return tomlkit.dumps(dict(sorted(self.plain().items(), key=_scalars_first)))


def _scalars_first(item: tuple[str, Any]) -> bool:
    """TOML wants plain values before tables; an empty list is a plain value."""
    return bool(item[1]) and isinstance(item[1], dict | list)


PARTS: Mapping[str, Any] = {
    "method": "fedmr",
    "defense": [],
    "channel": "plain",
    "attack": ["support", "sign_pc"],
}


def run_settings(*layers: Mapping[str, Any]) -> RunSettings:
    """Settings from plain values, the weakest layer first: study file, then options.

    Within a section (``sampling``, ``data``, ...) layers add up, key by key; a
    part, or a list of parts, is replaced whole. Raises SettingsError that names
    the key.
    """
    hints = get_type_hints(RunSettings)
    del hints["poisoner"]  # is asked for among attacks
    merged: dict[str, Any] = dict(PARTS)
    for layer in layers:
        for name, value in layer.items():
            if name not in hints:
                raise SettingsError(f"run: no setting {name!r}{suggest(name, hints)}")
            merged[name] = _over(merged.get(name), hints[name], name, value)
    values = {
        name: fields.parse(hints[name], value, "run", name)
        for name, value in merged.items()
        if name not in PARTS
    }
    try:
        return RunSettings(**_parts(merged), **values)
    except ValueError as error:
        raise SettingsError(f"run: {error}") from error


def _over(below: Any, hint: Any, name: str, value: Any) -> Any:
    """A layer's value on top of the layer below."""
    if name in PARTS or not is_dataclass(hint):
        return value
    section = dict(fields.table(hint, value, name))  # type: ignore[arg-type]
    if isinstance(section.get("memory"), str):
        section["memory"] = parse_bytes(section["memory"])
    return {**(below or {}), **section}


def _parts(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The chosen parts; a channel may stand among the defenses."""
    asked = listed("defense", given["defense"])
    channels = [one for one in asked if is_channel(one)]
    if len(channels) > 1:
        names = " and ".join(name_in("defense", one) for one in channels)
        raise SettingsError(
            f"defense: {names} cannot go together: one channel carries a run's "
            "uploads; leave all but one out"
        )
    return {
        "method": choose("method", given["method"]),
        "defense": choose_all("defense", [x for x in asked if not is_channel(x)]),
        "channel": choose("channel", channels[0] if channels else given["channel"]),
        **_attacks(listed("attack", given["attack"])),
    }


def _attacks(asked: Sequence[Any]) -> Mapping[str, Any]:
    """Those that watch, and the one that poisons."""
    poisoners = [one for one in asked if is_poisoner(one)]
    if len(poisoners) > 1:
        names = " and ".join(name_in("attack", one) for one in poisoners)
        raise SettingsError(
            f"attack: {names} cannot go together: one poisoner owns a run's malicious "
            "clients; make a run for each"
        )
    return {
        "attack": choose_all("attack", [x for x in asked if x not in poisoners]),
        "poisoner": choose("poisoner", poisoners[0]) if poisoners else None,
    }


def read_study(path: Path) -> Mapping[str, Any]:
    """A study file's values; raises SettingsError with file and line."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not UTF-8; save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: is no TOML: {error}") from error
