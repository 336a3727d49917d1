"""``privfed data``: what can be fetched, fetching it, and a data set in figures."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table

_EPILOG = """\b
Examples:
  privfed data list
  privfed data get ml-100k
  privfed data describe ml-100k
  privfed data describe ratings.csv --format table:user=customer,item=sku
"""
_JSON = click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
_CACHE = click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="PRIVFED_CACHE",
    show_envvar=True,
    help="Folder of fetched data.  [default: the platform's cache]",
)


@click.group(epilog=_EPILOG, short_help="Fetch data sets and look at them.")
def data() -> None:
    """Fetch public data sets, and show any data set in figures.

    Nothing is shipped with privfed but a generated demo: most data sets forbid
    that, so each is fetched from its own site, once, under its own terms.
    """


@data.command("list", short_help="List data sets and formats.")
@_JSON
@_CACHE
def list_data(as_json: bool, cache: Path | None) -> None:
    """List the data sets that can be fetched, and the formats that can be read."""
    from privfed.data.datasets import DATASETS
    from privfed.data.download import cache_folder
    from privfed.data.formats import FORMATS

    here = {name: (cache_folder(cache) / name).is_dir() for name in DATASETS}
    listed = {
        name: {"about": d.about, "license": d.license, "here": here[name]}
        for name, d in DATASETS.items()
    }
    shelved = _shelved()
    facts = {"datasets": listed, "folders": shelved, "formats": {**FORMATS}}
    if as_json:
        click.echo(json.dumps({"schema": 1, **facts}, indent=2))
        return
    _print(_datasets(listed), _pairs("format", dict(FORMATS)))
    if shelved:
        click.echo(f"In PRIVFED_DATA: {', '.join(shelved)}")


@data.command(short_help="Fetch a data set.")
@click.argument("name")
@_CACHE
@click.option(
    "--from",
    "archive",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Take this copy of the site's zip (still checked) instead of fetching it.",
)
@click.option("--again", is_flag=True, help="Replace what the cache has.")
def get(name: str, cache: Path | None, archive: Path | None, again: bool) -> None:
    """Fetch the data set NAME, check its SHA-256 and print the folder it is in."""
    from privfed.data.download import SOURCE, fetch

    folder = fetch(name, cache, archive=archive, again=again)
    click.echo((folder / SOURCE).read_text(encoding="utf-8").strip(), err=True)
    click.echo(folder)


@data.command(short_help="Show a data set in figures.")
@click.argument("what", metavar="NAME|PATH")
@click.option("--format", "format_", default="auto", help="How to read it.")
@_JSON
@_CACHE
def describe(what: str, format_: str, as_json: bool, cache: Path | None) -> None:
    """Show the size, density, long tail and contents of NAME or of a PATH."""
    from privfed.data.load import DataSettings, interactions
    from privfed.data.portrait import portrait

    facts = portrait(interactions(DataSettings(data=what, format=format_), cache))
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    _print(_pairs(facts["name"], _rows(facts)))


def _shelved() -> list[str]:
    """Folders of PRIVFED_DATA, which names reach too."""
    shelf = os.environ.get("PRIVFED_DATA")
    if not shelf or not Path(shelf).is_dir():
        return []
    return sorted(entry.name for entry in Path(shelf).iterdir() if entry.is_dir())


def _rows(facts: dict[str, Any]) -> dict[str, str]:
    """Figures in words; what a data set lacks is left out."""
    user, rating, time = facts["per_user"], facts["ratings"], facts["time"]
    rows = {
        "users": f"{facts['users']:,}",
        "items": f"{facts['items']:,}",
        "interactions": f"{facts['interactions']:,}",
        "density": f"{facts['density']:.3%}",
        "per user": f"{user['min']:,} to {user['max']:,}, median {user['median']:,g}",
        "long tail": f"Gini {facts['gini']:.2f}; the most popular tenth of items has "
        f"{facts['head_share']:.0%} of interactions",
        "ratings": _rating(rating) if rating else "none (implicit)",
        "time": _span(time) if time else "none",
        "split": _counts(facts["parts"] or {}) or "none of its own",
        "features": _counts(facts["features"], " wide"),
        "texts": _counts(facts["texts"], " items"),
        "images": f"{facts['images']:,}" if facts["images"] else "",
        "user facts": _counts(facts["attributes"], " values"),
        "negatives": f"{facts['negatives']} a user" if facts["negatives"] else "",
        "fingerprint": facts["fingerprint"],
    }
    return {name: words for name, words in rows.items() if words}


def _rating(rating: dict[str, float]) -> str:
    grid = f"{rating['low']:g} to {rating['high']:g} by {rating['step']:g}"
    return f"{grid}, mean {rating['mean']:.2f}"


def _span(time: dict[str, Any]) -> str:
    first, last = (time[day] or str(time[at]) for day, at in _ENDS)
    undated = f"; {time['undated']:,} rows undated" if time["undated"] else ""
    return f"{first} to {last}{undated}"


_ENDS = (("from", "first"), ("to", "last"))


def _counts(counts: dict[str, int], unit: str = "") -> str:
    return ", ".join(f"{name} {count:,}{unit}" for name, count in counts.items())


def _pairs(title: str, rows: dict[str, str]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", show_header=False, box=None)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for name, words in rows.items():
        table.add_row(Text(name), Text(words))
    return table


def _datasets(listed: dict[str, dict[str, Any]]) -> "Table":
    words = {
        name: f"{facts['about']}{' (fetched)' if facts['here'] else ''}"
        for name, facts in listed.items()
    }
    return _pairs("data set", words)


def _print(*tables: "Table") -> None:
    from rich.console import Console

    console = Console()
    for table in tables:
        console.print(table)
        console.print()
