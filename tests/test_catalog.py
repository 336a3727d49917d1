"""The catalog: every row leads to a part, and a wrong name to the right one."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import is_dataclass
from importlib.metadata import EntryPoint

import pytest

from privfed import catalog
from privfed.adversary import Attack
from privfed.attacks.items.support import Support
from privfed.built_in import BUILT_IN, KINDS, Kind
from privfed.catalog import entries, find, lookup
from privfed.data.encoders import Encoder
from privfed.errors import SettingsError
from privfed.interfaces import Channel, Defense, Method

BASES: Mapping[Kind, type] = {
    "method": Method,
    "defense": Defense,
    "channel": Channel,
    "attack": Attack,
    "encoder": Encoder,
}
PARTS = [(kind, name) for kind in BASES for name in BUILT_IN[kind]]


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_every_row_is_a_frozen_dataclass_of_its_kind(kind: Kind, name: str) -> None:
    found = find(kind, name)

    assert issubclass(found, BASES[kind])
    assert is_dataclass(found)
    assert found.__dataclass_params__.frozen  # type: ignore[attr-defined]


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_every_row_can_be_made_as_it_stands(kind: Kind, name: str) -> None:
    _, entry = lookup(kind, name)

    find(kind, name)(**entry.preset)


def test_every_help_is_one_short_line() -> None:
    for kind in KINDS:
        for name, entry in BUILT_IN[kind].items():
            assert 0 < len(entry.help) <= 70, (kind, name)
            assert "\n" not in entry.help


def test_a_dash_is_as_good_as_an_underscore() -> None:
    assert lookup("attack", "sign-pc")[0] == "sign_pc"


def test_a_near_miss_is_told_the_name() -> None:
    with pytest.raises(SettingsError, match=r"method: no 'fedm'; did you mean 'fedmr'"):
        find("method", "fedm")


def test_a_wild_miss_is_told_all_names() -> None:
    with pytest.raises(SettingsError, match="there is dp, fedgnn, gaussian, imia"):
        find("defense", "zzz")


def _plug_in(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    point = EntryPoint(name, value, "privfed.attacks")
    monkeypatch.setattr(
        catalog,
        "entry_points",
        lambda group: [point] if group == point.group else [],
    )


def test_another_package_adds_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    _plug_in(monkeypatch, "mine", "privfed.attacks.items.support:Support")

    assert find("attack", "mine") is Support
    assert "mine" in entries("attack")
    assert "mine" not in entries("method")


def test_another_package_cannot_take_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    _plug_in(monkeypatch, "support", "elsewhere:Support")

    with pytest.raises(SettingsError, match=r"attack support: .* name that is in use"):
        entries("attack")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("privfed.nowhere:Part", "cannot load it"),
        ("privfed.attacks.items.support:Missing", "cannot load it"),
        ("privfed.errors:SettingsError", "no frozen dataclass"),
        ("privfed.attacks.items.support:empty", "no frozen dataclass"),
    ],
)
def test_a_broken_plug_in_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, value: str, reason: str
) -> None:
    _plug_in(monkeypatch, "broken", value)

    with pytest.raises(SettingsError, match=f"attack broken: .*{reason}"):
        find("attack", "broken")


def test_listing_imports_no_torch() -> None:
    code = (
        "import sys; from privfed.built_in import KINDS; "
        "from privfed.catalog import entries; "
        "[entries(kind) for kind in KINDS]; "
        "assert not {'torch', 'pandas', 'numpy', 'pydantic'} & sys.modules.keys()"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
