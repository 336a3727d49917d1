"""What secure aggregation costs, and that it changes no result.

Four tables. (1) One round of synthetic uploads, an item table of which each client
touched a share, by cohort, neighbors, dropouts and way to send rows: bytes by stage,
processor seconds, and whether the sum is exact. (2) Bounds on the chance that a random
graph of neighbors fails. (3) The bytes of Bonawitz et al. (CCS 2017): an expansion of
1.73 for 2^10 clients with 2^20 numbers of 16 bits, 1.98 for 2^14 with 2^24, by their
formula, and as one device of this package really sends and receives them. (4) Training
in the clear and under secure aggregation.

    python defenses/secagg_study.py
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich.console import Console
from tables import empty_table, show, show_runs

from privfed.channels.masked.channel import Masked, Opened
from privfed.channels.masked.cover import Whole
from privfed.channels.masked.device import Device
from privfed.channels.masked.graph import (
    Odds,
    odds,
    usual_degree,
    usual_threshold,
)
from privfed.channels.masked.masks import Masks
from privfed.channels.masked.packing import packed_size
from privfed.channels.masked.vectors import pieces
from privfed.channels.masked.wire import (
    PUBLIC_BYTES,
    SEALED_BYTES,
    SHARE_BYTES,
    Request,
    Rules,
)
from privfed.cli.progress import Line
from privfed.config import run_settings
from privfed.data.world import Shape
from privfed.experiment import execute
from privfed.interfaces import Opening
from privfed.messages import Rows, Total, Uploads
from privfed.report.words import duration, size
from privfed.seeds import Seeds

ROUNDS: Sequence[tuple[int, Mapping[str, Any]]] = (
    (100, {}),
    (943, {}),
    (943, {"dropout": 0.05}),
    (943, {"dropout": 0.05, "neighbors": 64}),
    (943, {"dropout": 0.05, "bits": 32, "bound": 8.0}),
    (943, {"dropout": 0.05, "bits": 28, "bound": 8.0}),
    (943, {"dropout": 0.05, "rows": "touched"}),
    (943, {"dropout": 0.05, "rows": "touched", "min_senders": 5}),
)
PARTS = ("rounds", "odds", "expansion", "training")
COHORTS = ((100, 0.1, 0.1), (943, 0.1, 0.1), (943, 0.2, 0.05), (6040, 0.1, 0.1))
PUBLISHED = ((2**10, 2**20, 1.73), (2**14, 2**24, 1.98))
TRAINED = ("plain", "secagg", "secagg:rows=touched", "secagg:dropout=0.05")
FIGURES: Mapping[str, str] = {
    "utility.hr@10": "HR@10",
    "utility.ndcg@10": "NDCG@10",
    "cost.bytes_up": "upload",
    "cost.bytes_down": "download",
    "cost.client_seconds": "client",
    "cost.server_seconds": "server",
}


@dataclass(frozen=True)
class Cost:
    """One round. Bytes and milliseconds are means over clients."""

    clients: int
    settings: Mapping[str, Any]
    neighbors: int
    dropped: int
    up: Mapping[str, float]  # by stage
    down: Mapping[str, float]
    client_ms: float
    server_seconds: float
    exact: bool  # the survivors' integers, added in the clear, give the same total
    error: float  # largest, against their sum in floating point
    bare_rows: float


@dataclass(frozen=True)
class Expansion:
    """A client's traffic over 16 bits for each of its numbers."""

    clients: int
    numbers: int
    published: float
    formula: float
    messages: float  # by the sizes of this package's messages
    counted: float | None  # of the messages of one device


@click.command(help=__doc__)
@click.option(
    "--part",
    "parts",
    multiple=True,
    type=click.Choice(PARTS),
    help="Only some of the tables.",
)
@click.option("--items", default=1682, show_default=True)
@click.option("--width", default=64, show_default=True)
@click.option("--share", default=0.25, show_default=True, help="Of items touched.")
@click.option("--method", default="bpr", show_default=True, help="Any spec.")
@click.option("--data", default="demo", show_default=True, help="Name or path.")
@click.option("--rounds", default=20, show_default=True)
@click.option(
    "--out",
    default=Path("runs/secagg-study"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Run folders; a second call goes on from them.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def main(
    parts: Sequence[str],
    items: int,
    width: int,
    share: float,
    method: str,
    data: str,
    rounds: int,
    out: Path,
    as_json: bool,
) -> None:
    """Measure, and print the tables."""
    told: dict[str, Any] = {}
    console = Console(quiet=as_json, width=150)
    for part in parts or PARTS:
        if part == "rounds":
            costs = [carried(n, items, width, share, one) for n, one in ROUNDS]
            show_costs(console, costs, f"{items} x {width}, {share:.0%} touched")
            told[part] = [asdict(one) for one in costs]
        elif part == "odds":
            show_odds(console)
            told[part] = [{**asdict(bound(*one)), "of": one} for one in COHORTS]
        elif part == "expansion":
            expansions = [expansion(*one) for one in PUBLISHED]
            show_expansions(console, expansions)
            told[part] = [asdict(one) for one in expansions]
        else:
            runs = {one: trained(one, method, data, rounds, out) for one in TRAINED}
            heading = f"{method} on {data}, {rounds} rounds"
            show_runs(console, heading, FIGURES, runs)
            told[part] = runs
    if as_json:
        click.echo(json.dumps(told, indent=2))


def synthetic(clients: int, items: int, width: int, share: float) -> Uploads:
    """Random uploads; a client touches each item with chance ``share``."""
    rng = torch.Generator().manual_seed(0)
    sender, item = (torch.rand(clients, items, generator=rng) < share).nonzero().T
    value = torch.randn(len(item), width, generator=rng)
    return Uploads(torch.arange(clients), {"items": Rows(sender, item, value)})


def carried(
    clients: int, items: int, width: int, share: float, settings: Mapping[str, Any]
) -> Cost:
    """Carry one round and look at what it took."""
    click.echo(f"{clients} clients {dict(settings)}", err=True)
    channel, sent = Masked(**settings), synthetic(clients, items, width, share)
    opening = Opening(0, Shape(clients, items), sent.clients, Seeds(0)("channel"))
    opened, _ = channel.send(channel.open(opening), sent)
    delivered = channel.close(opened)
    stages, spent = opened.round.protocol.costs, delivered.spent
    clear, floats = in_the_clear(opened, sent)
    table = delivered.total.tables["items"]
    return Cost(
        clients,
        settings,
        opened.parties.graph.degree,
        clients - delivered.total.clients,
        {name: one.bytes_up / clients for name, one in stages.items()},
        {name: one.bytes_down / clients for name, one in stages.items()},
        1000 * spent.client_seconds / clients,
        spent.server_seconds,
        torch.equal(table, clear.tables["items"])
        and torch.equal(delivered.total.senders["items"], clear.senders["items"]),
        float((table.double() - floats).abs().max()),
        spent.other.get("bare_rows", 0.0),
    )


def in_the_clear(opened: Opened, sent: Uploads) -> tuple[Total, torch.Tensor]:
    """The total of the survivors' integers, and their table as a sum of floats."""
    round = opened.round
    here = torch.from_numpy(round.delivered)
    rows = sent.rows["items"]
    kept = here[rows.sender]
    place = here.long().cumsum(0) - 1
    left = Rows(place[rows.sender[kept]], rows.item[kept], rows.value[kept])
    uploads = replace(sent, clients=sent.clients[here], rows={"items": left})
    integers = torch.zeros(round.layout.length, dtype=torch.int64)
    for piece in pieces(uploads, round.layout.length):
        integers += round.layout.pack(piece).sum(0)
    table = torch.zeros(opened.opening.shape.items, left.value.shape[1]).double()
    table.index_add_(0, left.item, left.value.double())
    return round.layout.unpack(integers, len(uploads.clients)), table


def bound(clients: int, colluding: float, dropped: float) -> Odds:
    """How likely the usual graph of a cohort fails."""
    degree = usual_degree(clients)
    return odds(clients, degree, usual_threshold(degree), colluding, dropped)


def expansion(clients: int, numbers: int, published: float) -> Expansion:
    """The published figure, its formula (section 7), and this package's messages.

    A public key and a share are 256 bits each; a sum of 16-bit numbers has as many
    more bits as the number of clients.
    """
    bits = 16 + (clients - 1).bit_length()
    keys, shares = 2 * clients * 256, (5 * clients - 4) * 256
    others = clients - 1
    ours = (
        PUBLIC_BYTES * clients
        + (2 * SEALED_BYTES + SHARE_BYTES) * others
        + packed_size(numbers, bits)
        + Request(np.arange(others), np.arange(0), clients).size
    )
    small = clients <= 2**10  # masking takes clients times numbers
    return Expansion(
        clients,
        numbers,
        published,
        (keys + shares + numbers * bits) / (16 * numbers),
        ours / (2 * numbers),
        traffic(clients, numbers, bits) / (2 * numbers) if small else None,
    )


def traffic(clients: int, numbers: int, bits: int) -> int:
    """Bytes that one client of a complete graph sends and receives, counted.

    The others are there with their keys and with what they seal for this one.
    """
    everyone = np.arange(clients)
    rules = Rules(usual_threshold(clients - 1), 2, bits)
    device = Device(rules, 0, everyone[1:])
    others = [Device(Rules(1, 2, bits), k, everyone[:1]) for k in range(1, clients)]
    own, known = device.advertise(), [other.advertise() for other in others]
    letters = device.share(known)
    inbox = [other.share([own])[0] for other in others]
    vector = np.arange(numbers, dtype=np.uint32) % 2**16
    cover = Whole(clients - 1).own(0)
    packed = device.mask(vector, inbox, cover, Masks.of(numbers, bits))
    request = Request(everyone[1:], everyone[:0], clients)
    revealed = device.reveal(request)
    return (
        sum(len(one.sealing) + len(one.masking) for one in (own, *known))
        + sum(map(len, letters))
        + sum(map(len, inbox))
        + packed.nbytes
        + request.size
        + revealed.size
    )


def trained(
    channel: str, method: str, data: str, rounds: int, out: Path
) -> Mapping[str, float]:
    """The figures of one run."""
    click.echo(channel, err=True)
    common = {
        "method": method,
        "data": {"data": data},
        "rounds": rounds,
        "machine": {"workers": 1},
        "out": str(out),
    }
    settings = run_settings(common, {"defense": [channel]})
    with Line(settings.seed, settings.seeds) as progress:
        figures = execute(settings, True, progress).figures
    return {key: figure.value for key, figure in figures.items()}


def show_costs(console: Console, costs: Sequence[Cost], what: str) -> None:
    up = ("keys", "ids", "masked", "unmask")
    table = empty_table("clients, settings", "k", "dropped", *up, "down", "client")
    for name in ("server", "exact", "error", "bare"):
        table.add_column(name, justify="right")
    for one in costs:
        given = ", ".join(f"{key}={value}" for key, value in one.settings.items())
        table.add_row(
            f"{one.clients}{', ' if given else ''}{given}",
            str(one.neighbors),
            str(one.dropped),
            size(one.up.get("keys", 0.0) + one.up.get("shares", 0.0)),
            *(size(one.up.get(name, 0.0)) for name in _STAGES),
            size(sum(one.down.values())),
            f"{one.client_ms:.1f} ms",
            duration(one.server_seconds),
            _exact(one),
            f"{one.error:.1e}",
            f"{one.bare_rows:.0f}",
        )
    show(console, f"One round of {what}; bytes up by stage, a client", table)


_STAGES = ("ids", "masked input", "unmasking")


def _exact(one: Cost) -> str:
    if "min_senders" in one.settings:
        return "withheld"
    return "yes" if one.exact else "no"


def show_odds(console: Console) -> None:
    table = empty_table("clients", "k", "threshold", "colluding", "dropped")
    for name in ("key rebuilt", "graph split", "round lost"):
        table.add_column(name, justify="right")
    for clients, colluding, dropped in COHORTS:
        told, degree = bound(clients, colluding, dropped), usual_degree(clients)
        table.add_row(
            *map(str, (clients, degree, usual_threshold(degree))),
            *(f"{share:.0%}" for share in (colluding, dropped)),
            *(f"{p:.0e}" for p in (told.collusion, told.split, told.dropout)),
        )
    show(console, "Chance at most that a round's graph fails", table)


def show_expansions(console: Console, expansions: Sequence[Expansion]) -> None:
    table = empty_table(
        "clients", "numbers", "published", "formula", "messages", "counted"
    )
    for one in expansions:
        counted = "" if one.counted is None else f"{one.counted:.3f}"
        table.add_row(
            *map(str, (one.clients, one.numbers, one.published)),
            *(f"{value:.3f}" for value in (one.formula, one.messages)),
            counted,
        )
    show(console, "Traffic of a client over 16 bits a number", table)


if __name__ == "__main__":
    main()
