"""What homomorphic encryption costs, beside Paillier, and that it changes no result.

Five tables. (parameters) The parameter sets. (costs) One round of synthetic uploads, an
item table of which every row is sent, by scheme and key holder: processor time of
devices, server and key holder, bytes, error of the sum. (paillier) The same upload
under Paillier with one number a ciphertext, as published federated recommenders use it:
some numbers are measured, the upload is extrapolated. (fedmf) The released example of
FedMF, Chai et al. 2020, 7 users and 40 items of MovieLens: loss, error and upload
beside its log, under Paillier of 1,024 bits and under this package's encryption.
(training) Whole runs in the clear and encrypted.

    python defenses/encryption_study.py

Names of tables print these alone. Paillier needs the library phe; FedMF's example needs
``privfed data get ml-latest-small``.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import log2
from pathlib import Path
from typing import Any

import click
import torch
from fedmf_example import Curve, curves
from paillier import library, sampled
from rich.console import Console
from tables import empty_table, show, show_runs

from privfed.channels.encrypted.channel import Encrypted
from privfed.channels.encrypted.parameters import (
    LADDERS,
    MOST_BITS,
    SECURITY,
    Parameters,
)
from privfed.cli.progress import Line
from privfed.config import run_settings
from privfed.data.world import Shape
from privfed.errors import PrivfedError
from privfed.experiment import execute
from privfed.interfaces import Opening, Plan
from privfed.messages import Uploads, every
from privfed.methods.fedmf import FedMF
from privfed.report.words import duration, size
from privfed.sampling import Sampling
from privfed.seeds import Seeds

PARTS = ("parameters", "costs", "paillier", "fedmf", "training")
CHANNELS: Sequence[Encrypted] = (
    Encrypted(),
    Encrypted(resolution=1e-8),  # longer plaintexts than the small degree has room for
    Encrypted(key_holder="authority"),  # these as well, for a public key's noise
    Encrypted(key_holder="authority", bound=16.0),
    Encrypted(scheme="ckks"),
    Encrypted(scheme="ckks", key_holder="authority"),
)
TRAINED = ("plain", "he", "he:key_holder=authority,bound=16", "he:scheme=ckks")
FIGURES: Mapping[str, str] = {
    "utility.hr@10": "HR@10",
    "utility.ndcg@10": "NDCG@10",
    "cost.bytes_up": "upload",
    "cost.client_seconds": "client",
    "cost.server_seconds": "server",
    "cost.key_holder_seconds": "key holder",
}
_DEVIATION = 0.05  # of a synthetic number; a gradient's
_AT_ONCE = 8


@dataclass(frozen=True)
class Cost:
    """One round. Milliseconds are processor time, of one client where clients work."""

    channel: str
    encrypt_ms: float
    add_ms: float  # of one upload
    decrypt_ms: float  # of the sum
    bytes_up: float
    expansion: float
    error: float  # largest of the sum's numbers
    relative: float  # over the largest number of the sum


@click.command(help=__doc__)
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option("--clients", default=943, show_default=True)
@click.option("--items", default=1682, show_default=True)
@click.option("--width", default=64, show_default=True)
@click.option("--numbers", default=50, show_default=True, help="Paillier measures.")
@click.option(
    "--ratings", default="ml-latest-small", show_default=True, help="FedMF's."
)
@click.option("--iterations", default=3, show_default=True, help="FedMF's by Paillier.")
@click.option("--method", default="fcf", show_default=True, help="Any spec.")
@click.option("--data", default="demo", show_default=True, help="Name or path.")
@click.option("--rounds", default=10, show_default=True)
@click.option(
    "--out",
    default=Path("runs/encryption-study"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Run folders; a second call goes on from them.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def main(parts: Sequence[str], as_json: bool, **given: Any) -> None:
    """Measure, and print the tables asked for, all by default."""
    chosen = parts or PARTS
    try:
        if {"paillier", "fedmf"} & {*chosen}:
            library()  # before anything is measured
        found = {part: list(_MEASURES[part](given)) for part in chosen}
    except PrivfedError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(found, indent=2, default=asdict))
        return
    for part, rows in found.items():
        _SHOWS[part](Console(width=110), rows, given)


def _parameters(_: Mapping[str, Any]) -> Iterator[Parameters]:
    return (one for ladder in LADDERS.values() for one in ladder)


def _costs(given: Mapping[str, Any]) -> Iterator[Cost]:
    for channel in CHANNELS:
        click.echo(_named(channel), err=True)
        yield cost(channel, given["clients"], given["items"], given["width"])


def _named(channel: Encrypted) -> str:
    usual = Encrypted()
    other = [
        f"{name} {getattr(channel, name):g}"
        for name in ("bound", "resolution")
        if getattr(channel, name) != getattr(usual, name)
    ]
    return ", ".join([channel.scheme, channel.key_holder, *other])


def cost(channel: Encrypted, clients: int, items: int, width: int) -> Cost:
    """Carry one round of uploads that send every row."""
    shape, ids = Shape(clients, items), torch.arange(clients)
    plan = Plan(shape, 1, 1, 1.0, FedMF(), clients, Sampling())
    opening = Opening(0, shape, ids, Seeds(0)("channel"))
    rng = torch.Generator().manual_seed(0)
    exact = torch.zeros(items, width, dtype=torch.float64)
    with channel.ready(plan) as ready:
        opened = ready.open(opening)
        for some in ids.split(_AT_ONCE):
            value = _DEVIATION * torch.randn(len(some), items, width, generator=rng)
            exact += value.double().sum(0)
            opened, _ = ready.send(opened, Uploads(some, {"items": every(value)}))
        delivered = ready.close(opened)
    spent = delivered.spent
    error = float((delivered.total.tables["items"].double() - exact).abs().max())
    return Cost(
        _named(channel),
        1000 * spent.client_seconds / clients,
        1000 * spent.server_seconds / clients,
        1000 * spent.other["key_holder_seconds"],
        spent.bytes_up / clients,
        spent.other["ciphertext_expansion"],
        error,
        error / float(exact.abs().max()),
    )


def _paillier(given: Mapping[str, Any]) -> Iterator[Cost]:
    numbers = given["items"] * given["width"]
    for bits in (1024, 2048):
        click.echo(f"Paillier {bits}", err=True)
        one = sampled(bits, given["numbers"], numbers)
        yield Cost(
            f"Paillier {bits}, {one.measured} numbers measured",
            1000 * one.encrypt,
            1000 * one.add,
            1000 * one.decrypt,
            one.bytes_up,
            one.bytes_up / (4 * numbers),
            one.error,
            one.relative,
        )


def _fedmf(given: Mapping[str, Any]) -> Iterator[Curve]:
    return curves(given["ratings"], given["iterations"])


def _training(given: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for channel in TRAINED:
        click.echo(channel, err=True)
        common = {
            "method": given["method"],
            "data": {"data": given["data"]},
            "rounds": given["rounds"],
            "machine": {"workers": 1},
            "out": str(given["out"]),
        }
        settings = run_settings(common, {"defense": [channel]})
        with Line(settings.seed, settings.seeds) as progress:
            figures = execute(settings, True, progress).figures
        yield {"channel": channel} | {k: f.value for k, f in figures.items()}


def _show_parameters(
    console: Console, rows: Sequence[Parameters], _: Mapping[str, Any]
) -> None:
    columns = ("modulus", "allowed", "sum up to", "uploads, seeded", "public key")
    table = empty_table("", *columns, "ciphertext, seeded", "whole")
    for row in rows:
        table.add_row(
            row.name,
            f"{sum(row.primes)} bits",
            f"{MOST_BITS[row.degree]} bits",
            f"2^{log2(row.capacity):.0f}",
            *(f"{row.most_terms(seeded):.3g}" for seeded in (True, False)),
            *(f"{row.room(seeded):,}" for seeded in (True, False)),
        )
    show(console, f"Parameters at {SECURITY}-bit security", table)


def _show_costs(
    console: Console, rows: Sequence[Cost], given: Mapping[str, Any]
) -> None:
    clients, items, width = (given[name] for name in ("clients", "items", "width"))
    heading = f"One round of {clients} uploads of {items} x {width} numbers"
    if rows[0].channel.startswith("Paillier"):
        heading = (
            f"One upload of {items} x {width} numbers under Paillier, extrapolated"
        )
    columns = ("encrypt", "add one", "decrypt", "upload", "x float32", "error", "rel.")
    table = empty_table("", *columns)
    for row in rows:
        times = (row.encrypt_ms, row.add_ms, row.decrypt_ms)
        table.add_row(
            row.channel,
            *(duration(t / 1000) for t in times),
            size(row.bytes_up),
            f"{row.expansion:.2f}",
            f"{row.error:.1e}",
            f"{row.relative:.1e}",
        )
    show(console, heading, table)


def _show_fedmf(console: Console, rows: Sequence[Curve], _: Mapping[str, Any]) -> None:
    columns = ("loss 1", "loss 2", "loss 3", "loss 175", "RMSE", "MB", "s/iteration")
    table = empty_table("", *columns)
    for row in rows:
        last = (
            "" if value is None else f"{value:.{digits}f}"
            for value, digits in ((row.rmse, 5), (row.megabytes, 4), (row.seconds, 2))
        )
        losses = ("" if value is None else f"{value:.5f}" for value in row.losses)
        table.add_row(row.name, *losses, *last)
    show(console, "FedMF's released example: 7 users, 40 items", table)


def _show_runs(
    console: Console, rows: Sequence[Mapping[str, Any]], given: Mapping[str, Any]
) -> None:
    heading = f"{given['method']} on {given['data']}, {given['rounds']} rounds"
    show_runs(console, heading, FIGURES, {row["channel"]: row for row in rows})


_MEASURES: Mapping[str, Callable[[Mapping[str, Any]], Iterator[Any]]] = {
    "parameters": _parameters,
    "costs": _costs,
    "paillier": _paillier,
    "fedmf": _fedmf,
    "training": _training,
}
_SHOWS: Mapping[str, Callable[[Console, Any, Mapping[str, Any]], None]] = {
    "parameters": _show_parameters,
    "costs": _show_costs,
    "paillier": _show_costs,
    "fedmf": _show_fedmf,
    "training": _show_runs,
}


if __name__ == "__main__":
    main()
