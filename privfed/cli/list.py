"""``privfed list``: what there is, and the settings of one part."""

import json
from typing import TYPE_CHECKING, Any

import click

from privfed.built_in import KINDS, Kind
from privfed.catalog import entries, find, lookup, suggest
from privfed.errors import SettingsError

if TYPE_CHECKING:
    from rich.console import RenderableType

_EPILOG = """\b
Examples:
  privfed list
  privfed list defenses
  privfed list fedmr
"""


@click.command("list", epilog=_EPILOG, short_help="List parts and their settings.")
@click.argument("what", required=False, metavar="[KIND|NAME]")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def list_parts(what: str | None, as_json: bool) -> None:
    """List the methods, defenses, channels, attacks and encoders there are; what
    those of one KIND (`defenses`) do and who sees what; or the settings of one part
    (`dp`), with defaults.
    """
    kind = next((k for k in KINDS if what in (k, f"{k}s")), None)
    if what is not None and kind is None:
        kind, name = _part(what)
        facts = _facts(kind, name)
        _show(facts, _one(facts), as_json)
        return
    if kind is not None:
        kinds = _LISTED.get(kind, (kind,))
        parts = {f"{k}s": {n: _said(k, n) for n in entries(k)} for k in kinds}
        _show(parts, _each(parts), as_json)
        return
    plain = {f"{k}s": {n: e.help for n, e in entries(k).items()} for k in KINDS}
    _show(plain, _all(plain), as_json)


def _part(name: str) -> tuple[Kind, str]:
    """Kind and name of a part; raises SettingsError where there is none."""
    known: dict[str, Kind] = {n: kind for kind in KINDS for n in entries(kind)}
    spelled = name if name in known else name.replace("-", "_")
    if spelled not in known:
        kinds = [f"{kind}s" for kind in KINDS]
        raise SettingsError(f"list: no {name!r}{suggest(spelled, [*known, *kinds])}")
    return known[spelled], spelled


def _facts(kind: Kind, name: str) -> dict[str, Any]:
    """What a part says of itself."""
    from privfed.fields import build, plain, settings

    _, entry = lookup(kind, name)
    cls = find(kind, name)
    defaults = plain(build(cls, entry.preset, f"{kind} {name}"))
    return {
        "kind": kind,
        "name": name,
        **_said(kind, name),
        "settings": {
            key: {"default": defaults.get(key), "type": _type(hint)}
            for key, hint in settings(cls).items()
        },
    }


def _said(kind: Kind, name: str) -> dict[str, str]:
    """What a part says of itself, in words."""
    cls = find(kind, name)
    told = {word: getattr(cls, word, None) for word in _SAYS}
    words = {word: value for word, value in told.items() if isinstance(value, str)}
    if kind in ("attack", "poisoner"):
        words["sees"] = cls.means()
    return {"help": lookup(kind, name)[1].help, **words}


# A channel is a defense to who runs one: ``--defense`` takes either.
_LISTED: dict[Kind, tuple[Kind, ...]] = {"defense": ("defense", "channel")}

_SAYS = (
    "task",
    "keeps",
    "sends",
    "needs",
    "unit",
    "trust",
    "hides",
    "does_not_hide",
    "cost",
    "recovers",
    "sees",
    "paper",
)


def _type(hint: Any) -> str:
    """A field's type in a user's words."""
    from types import NoneType
    from typing import Literal, get_args, get_origin

    inner = get_args(hint)
    if get_origin(hint) is Literal:
        return " | ".join(map(str, inner))
    if get_origin(hint) is tuple:
        return f"{_type(inner[0])}+..."
    if inner:
        return " | ".join(_type(one) for one in inner)
    names = {str: "text", int: "whole number", float: "number", bool: "true | false"}
    return "none" if hint is NoneType else names.get(hint, hint.__name__)


def _all(plain: dict[str, dict[str, str]]) -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for kind, rows in plain.items():
        table.add_row(Text(kind, style="bold"))
        for name, help in rows.items():
            table.add_row(Text(f"  {name}"), Text(help))
    return table


def _each(parts: dict[str, dict[str, dict[str, str]]]) -> "RenderableType":
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    shown: list[RenderableType] = []
    for kind, every in parts.items():
        shown += [*([""] if shown else []), Text(kind, style="bold")]
        for name, said in every.items():
            title = Text(name, style="bold")
            title.append(f": {said['help']}", style="not bold")
            shown += ["", title, Padding(_words(said), (0, 0, 0, 2))]
    return Group(*shown)


def _words(said: dict[str, Any]) -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    told = Table.grid(padding=(0, 2))
    for word in (word for word in _SAYS if word in said):
        told.add_row(_TITLES.get(word, word.replace("_", " ")), Text(said[word]))
    return told


_TITLES = {
    "keeps": "stays on the device",
    "sends": "uploads",
    "needs": "server needs",
    "unit": "guarantee for",
    "trust": "trusted",
}


def _one(facts: dict[str, Any]) -> "RenderableType":
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    said = _words(facts)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("setting", "default", "values"):
        table.add_column(heading)
    for key, row in facts["settings"].items():
        table.add_row(key, Text(_default(row["default"])), row["type"])
    title = Text(f"{facts['kind']} {facts['name']}", style="bold")
    title.append(f": {facts['help']}", style="not bold")
    if not facts["settings"]:
        return Group(title, said)
    return Group(title, said, "", table)


def _default(value: Any) -> str:
    """A default as an option writes it."""
    if isinstance(value, list):
        return "+".join(map(_default, value))
    word = str(value)
    return word.lower() if value is None or isinstance(value, bool) else word


def _show(plain: object, table: "RenderableType", as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(plain, indent=2))
        return
    from rich.console import Console

    Console().print(table, highlight=False)
