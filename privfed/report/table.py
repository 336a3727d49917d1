"""One run as one table for people. It formats what was measured, no more."""

from collections.abc import Iterable, Iterator, Mapping

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from privfed.accounting.guarantee import Guarantee
from privfed.report.words import metric, number, upward
from privfed.result import Figure, Result

_SECTIONS = ("utility", "leakage", "hijack", "fairness", "cost")


def render(result: Result) -> RenderableType:
    """The table of a run: figures, then what they do and do not promise.

    Fits 80 columns, and is plain text where the output is no terminal.
    """
    return Group(
        _heading(result),
        "",
        _figures(result),
        *_block("privacy", _privacy(result)),
        *_block("adversaries", result.adversaries.items()),
        *_block("not applicable", result.not_applicable.items()),
        *_block("notes", (("", note) for note in result.notes)),
    )


def _heading(result: Result) -> RenderableType:
    told = Table.grid(padding=(0, 2))
    told.add_column()
    told.add_column(overflow="fold")
    told.add_row(Text("method"), Text(result.method, style="bold"))
    told.add_row(Text("defense"), Text(", ".join(result.defenses) or "none", "bold"))
    told.add_row(Text("data"), Text(_data(result.data)))
    told.add_row(Text("protocol"), Text(result.protocol))
    word = "seed" if len(result.seeds) == 1 else "seeds"
    told.add_row(Text(word), Text(", ".join(map(str, result.seeds))))
    return told


def _data(data: Mapping[str, object]) -> str:
    counted = [
        f"{data[word]:,} {word}"
        for word in ("clients", "items", "interactions")
        if word in data
    ]
    split = [f"split: {data['split']}"] if "split" in data else []
    return f"{data.get('name', 'unnamed')}: {', '.join(counted + split)}"


def _figures(result: Result) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("95 % interval", overflow="fold")
    table.add_column("reference", overflow="fold")
    for section in _sections(result.figures):
        table.add_row(Text(section, style="bold"))
        for row in _rows(result, section):
            table.add_row(*row)
    return table


def _sections(figures: Mapping[str, Figure]) -> Iterable[str]:
    """Sections that have figures: the known ones first, in their order."""
    there = dict.fromkeys(key.partition(".")[0] for key in figures)
    known = [name for name in _SECTIONS if name in there]
    return known + [name for name in there if name not in _SECTIONS]


def _rows(result: Result, section: str) -> Iterator[tuple[Text, ...]]:
    """Rows of a section; figures of a part stand under the part's name."""
    keys = [key for key in result.figures if key.partition(".")[0] == section]
    for group in dict.fromkeys(_group(key) for key in keys):
        if group:
            yield (Text(f"  {group}"),)
        indent = "    " if group else "  "
        for key in keys:
            if _group(key) == group:
                yield (Text(indent + metric(key)), *_cells(result, key))


def _group(key: str) -> str:
    """``leakage.sign_pc.f1`` belongs to "sign_pc"; ``utility.hr@10`` to none."""
    return key.rpartition(".")[0].partition(".")[2]


def _cells(result: Result, key: str) -> tuple[Text, Text, Text]:
    figure = result.figures[key]
    reached = result.references.get(key, {})
    value, between = number(key, figure.value), _interval(key, figure)
    return Text(value), Text(between), Text(_reference(key, reached))


def _interval(key: str, figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return ""
    low, high = number(key, figure.low), number(key, figure.high)
    over = f", {figure.over}" if figure.over else ""
    return f"{low} to {high}{over}"


def _reference(key: str, reached: Mapping[str, float]) -> str:
    return "\n".join(f"{who} {number(key, value)}" for who, value in reached.items())


def _block(title: str, rows: Iterable[tuple[str, str]]) -> Iterator[RenderableType]:
    """A titled list of (word, sentence), or nothing where there is none."""
    told = Table.grid(padding=(0, 2))
    listed = list(rows)
    for word, sentence in listed:
        cells = [Text(word), Text(sentence)]
        told.add_row(*cells[not any(word for word, _ in listed) :])
    if listed:
        yield ""
        yield Text(title, style="bold")
        yield Padding(told, (0, 0, 0, 2))


def _privacy(result: Result) -> Iterator[tuple[str, str]]:
    if not result.privacy:
        yield "NOT DP", "no defense of this run promises anything"
    for name, promise in result.privacy.items():
        yield name, _promise(promise)
        yield "covers", promise.covers
        yield "trust", promise.trust
        for caveat in promise.caveats:
            yield "caveat", caveat


def _promise(promise: Guarantee) -> str:
    if not promise.private or promise.epsilon is None:
        return "NOT DP: this gives no epsilon"
    delta = "" if promise.delta is None else f", delta {promise.delta:g}"
    return (
        f"epsilon {upward(promise.epsilon)}{delta} for each {promise.unit} "
        f"({promise.relation}), by {promise.accountant}"
    )
