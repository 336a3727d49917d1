"""Every method of the catalog on the same data: what it reaches, shows and costs.

    python benchmarks/methods.py measure                     # demo and ml-100k
    python benchmarks/methods.py measure --only metamf --data demo
    python benchmarks/methods.py write                       # docs/methods.md

``measure`` runs each method as ``privfed run --method NAME`` does, one seed, and keeps
what it found in methods.json beside this file; ``write`` renders docs/methods.md from
that, from the catalog and from published.toml, where each figure of a paper stands
beside ours with the command that makes it.
"""

import json
import time
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from privfed.catalog import entries, find
from privfed.config import run_settings
from privfed.experiment import execute
from privfed.report.words import duration, metric, size
from privfed.result import Result

HERE = Path(__file__).parent
MEASURED, PUBLISHED = HERE / "methods.json", HERE / "published.toml"
PAGE = HERE.parent / "docs" / "methods.md"
TASKS = {
    "ranking": ("hr@10", "ndcg@10"),
    "rating": ("mae", "rmse"),
    "choice": ("accuracy@1", "accuracy@4"),
}
Row = dict[str, Any]


@click.group(help=__doc__)
def main() -> None: ...


@main.command()
@click.option("--data", multiple=True, default=("demo", "ml-100k"), show_default=True)
@click.option("--only", multiple=True, help="These methods; default: all of them.")
@click.option("--rounds", default=60, show_default=True)
@click.option("--ratings", default=0, help="A round: so many shuffled interactions.")
@click.option("--out", default="runs/methods", show_default=True)
def measure(
    data: Sequence[str], only: Sequence[str], rounds: int, ratings: int, out: str
) -> None:
    """Run the methods and keep what was found."""
    rows = {(row["data"], row["method"]): row for row in _kept()}
    for source in data:
        for name in only or entries("method"):
            row = _measure(name, source, rounds, ratings, out)
            rows[source, row["method"]] = row
            click.echo(f"{source} {name}: {row['figures']}", err=True)
            MEASURED.write_text(json.dumps([*rows.values()], indent=1) + "\n")


def _kept() -> list[Row]:
    return json.loads(MEASURED.read_text()) if MEASURED.exists() else []


def _measure(spec: str, data: str, rounds: int, ratings: int, out: str) -> Row:
    name, _, _ = spec.partition(":")
    batches = {"kind": "interactions", "interactions_per_round": ratings}
    settings = run_settings(
        {
            "method": spec,
            "sampling": batches if ratings else {},
            "data": {"data": data, "features": _features(name)},
            "rounds": rounds,
            "machine": {"workers": 1},
            "out": out,
        }
    )
    start = time.process_time()
    result = execute(settings, True, lambda *_: None)
    return {
        "method": name,
        "spec": spec,
        "data": data,
        "rounds": f"{rounds} of {ratings:,} ratings" if ratings else str(rounds),
        "protocol": f"{result.data['split']}, {result.protocol}",
        "seconds": time.process_time() - start,
        "figures": {key: one.value for key, one in result.figures.items()},
        "references": _references(result),
        "not_applicable": dict(result.not_applicable),
    }


def _features(name: str) -> list[str]:
    return ["auto"] if name.startswith("fedmr") else ["none"]


def _references(result: Result) -> dict[str, dict[str, float]]:
    return {key: dict(value) for key, value in result.references.items()}


@main.command()
def write() -> None:
    """Render docs/methods.md."""
    PAGE.write_text("\n".join(_page()) + "\n")
    click.echo(f"wrote {PAGE}", err=True)


def _page() -> Iterable[str]:
    yield "# Methods\n"
    yield (
        "Every recommender that privfed trains: what it promises, and what we "
        "measured. `privfed list methods` prints the first table, `privfed list NAME` "
        "a method's settings.\n"
    )
    yield from _promises()
    for data in dict.fromkeys(row["data"] for row in _kept()):
        yield from _found(data)
    yield from _published()
    yield (
        "\nThis page is written by `python benchmarks/methods.py write`; the tables by "
        "data set come from `python benchmarks/methods.py measure`."
    )


def _promises() -> Iterable[str]:
    head = ("method", "task", "stays on the device", "uploads", "server needs", "paper")
    yield "## Who sees what\n"
    rows = []
    for name in entries("method"):
        cls = find("method", name)
        rows.append((name, cls.task, cls.keeps, cls.sends, cls.needs, cls.paper))
    yield from _table(head, rows)


def _found(data: str) -> Iterable[str]:
    rows = [row for row in _kept() if row["data"] == data]
    yield f"\n## Measured on {data}\n"
    yield (
        f"Each method as in `privfed run --method fcf --data {data} --rounds 60`: all "
        "clients in every round unless the table says otherwise or the method chooses "
        "them, seed 0, no defense; features only where the method reads them. Leakage "
        "is what an honest but curious server reads off the uploads (F1 of recovered "
        "interactions; n/a: nothing such to recover)."
    )
    for task, figures in TASKS.items():
        yield from _of_task(task, figures, rows)


def _of_task(task: str, figures: Sequence[str], rows: list[Row]) -> Iterable[str]:
    known = entries("method")
    by_name = {row["method"]: row for row in rows}
    mine = [by_name[name] for name in known if name in by_name]
    mine = [row for row in mine if find("method", row["method"]).task == task]
    if not mine:
        return
    yield f"\n**{task.capitalize()}** ({mine[0]['protocol']})\n"
    head = [
        "method",
        "rounds",
        *(metric(f"utility.{name}") for name in figures),
        "support F1",
        "sign_pc F1",
        "upload/client/round",
        "time/client/round",
        "CPU, all rounds",
    ]
    yield from _table(head, [*_floors(figures, mine[0]), *map(_cells(figures), mine)])


def _floors(figures: Sequence[str], row: Row) -> Iterable[Sequence[str]]:
    """The rows of predictors without a model."""
    names = [f"utility.{name}" for name in figures]
    for who in row["references"].get(names[0], {}):
        values = [f"{row['references'][key][who]:.3f}" for key in names]
        yield [f"*{who}*", "", *values, "", "", "", "", ""]


def _cells(figures: Sequence[str]) -> Any:
    def cells(row: Row) -> Sequence[str]:
        found: Mapping[str, float] = row["figures"]
        leaked = [found.get(f"leakage.{who}.f1") for who in ("support", "sign_pc")]
        return [
            row["spec"],
            row["rounds"],
            *(f"{found[f'utility.{name}']:.3f}" for name in figures),
            *("n/a" if value is None else f"{value:.3f}" for value in leaked),
            size(found["cost.bytes_up"]),
            duration(found["cost.client_seconds"]),
            duration(row["seconds"]),
        ]

    return cells


def _published() -> Iterable[str]:
    yield "\n## Published beside measured\n"
    yield (
        "Under each paper's own protocol as far as this machine gets; the page named "
        "says what differs, and what does not hold.\n"
    )
    rows = tomllib.loads(PUBLISHED.read_text())["row"]
    head = ("system", "data", "figure", "published", "measured", "page")
    yield from _table(
        head,
        [
            (
                row["system"],
                row["data"],
                row["figure"],
                row["published"],
                row["measured"],
                f"[{row['page']}]({row['page']}.md): `{row['command']}`",
            )
            for row in rows
        ],
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "/") for cell in row) + " |"


if __name__ == "__main__":
    main()
