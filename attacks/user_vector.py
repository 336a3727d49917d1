"""Whose upload is it? The private user vector, read off one layer.

A shared first layer that reads a client's vector u beside an item's gets a gradient
(sum of the outputs' gradients) u', so u is that gradient over its bias's, and no batch
size hides it. First the closed form by itself, on random NeuMF towers of width 64 and
300 samples: one step of FedSGD, 20 local steps of SGD, 20 of Adam. Then FedNCF, PFedRec
and BPR as privfed trains them, under no defense, noise without a guarantee, and
differential privacy. A linear head gives only its direction away.

    python attacks/user_vector.py

Claims stand beside an earlier measurement of ours; the exit code is 1 where one does
not hold. "own cosine" is the cosine after the mean of the other users' vectors is taken
off: where all vectors start alike, cosine 1 is what saying the same of everybody
reaches. The data are MovieLens-100K where it is at hand (``privfed data get ml-100k``),
else the generated demo world.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import click
import torch
from at_hand import at_hand
from claims import Claim, table
from rich.console import Console
from rich.table import Table
from torch import Generator, Tensor, nn

from privfed.attacks.reading.vector_readers import inverted
from privfed.cli.progress import Line
from privfed.config import RunSettings, run_settings
from privfed.experiment import execute
from privfed.metrics.leakage.vectors import cosine
from privfed.result import Figure

WIDTH, SAMPLES, CLIENTS = 64, 300, 32
SOURCE = "an earlier measurement (width 64, 300 samples)"
METHODS = ("fedncf", "fedncf:batch=1000000", "pfedrec", "bpr")
DEFENSES = (
    "none",
    "gaussian:variance=1e-6",
    "imia_ldp",
    "dp:epsilon=8",
    "ldp:epsilon=8",
)
_WIDE = 112  # columns that the tables take
METRICS = ("cosine", "own_cosine", "sign_agreement", "relative_error")


@dataclass(frozen=True)
class Row:
    """How near the vectors came under one defense, beside what tells no user apart."""

    method: str
    defense: str
    figures: dict[str, Figure]
    prior: dict[str, float]
    run: str


@click.command(help=__doc__)
@click.option("--data", help="Name or path.  [default: ml-100k, else demo]")
@click.option("--method", "methods", multiple=True, default=METHODS, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option(
    "--out",
    default=Path("runs/user-vector"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Run folders.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def main(
    data: str | None,
    methods: Sequence[str],
    rounds: int,
    workers: int,
    out: Path,
    as_json: bool,
) -> None:
    """Check the closed form, then attack under every defense."""
    claims = list(checked())
    common = {
        "data": {"data": data or at_hand(), "features": []},
        "rounds": rounds,
        "machine": {"workers": workers},
        "attack": ["user_vector"],
        "out": str(out),
    }
    rows = [
        _measured(
            run_settings({**common, "method": method}, {"defense": [defense]}),
            method,
            defense,
        )
        for method in methods
        for defense in DEFENSES
    ]
    if as_json:
        told = [{**asdict(one), "holds": one.holds} for one in claims]
        shown = {"claims": told, "rows": [asdict(row) for row in rows]}
        click.echo(json.dumps(shown, indent=2))
    else:
        console = Console(width=_WIDE)
        console.print(table(claims), highlight=False)
        console.print()
        console.print(_table(rows), highlight=False)
    if not all(one.holds for one in claims):
        raise SystemExit(1)


def checked() -> Iterator[Claim]:
    """The closed form against vectors that are known."""
    for batch in (1, 16, SAMPLES):
        found, real = _recovered("sgd", 1, 1.0, batch, CLIENTS)
        name = f"cosine, FedSGD, batch of {batch}"
        yield Claim(name, 1.0, float(cosine(found, real).min()), 1e-6, SOURCE)
    found, real = _recovered("sgd", 1, 1.0, SAMPLES, CLIENTS)
    error = float(((found - real).norm(dim=1) / real.norm(dim=1)).mean())
    name = "relative error, FedSGD, float32"
    yield Claim(name, 1.1e-7, error, 1e-6, SOURCE, "at most")
    found, real = _recovered("sgd", 20, 0.01, SAMPLES, CLIENTS)
    after = float(cosine(found, real).mean())
    yield Claim("cosine, 20 local steps of SGD, 0.01", 1.0, after, 1e-3, SOURCE)
    found, real = _recovered("adam", 20, 1e-3, SAMPLES, CLIENTS)
    after = float(cosine(found, real).mean())
    yield Claim("cosine, 20 local steps of Adam, 0.001", 0.79, after, 0.05, SOURCE)
    signs = float((found.sign() == real.sign()).double().mean())
    yield Claim("signs right, 20 local steps of Adam", 1.0, signs, 0.02, SOURCE)


def _recovered(
    kind: Literal["sgd", "adam"], steps: int, rate: float, batch: int, clients: int
) -> tuple[Tensor, Tensor]:
    """Recovered and true vectors, (clients, width), of as many random networks."""
    weights, biases, real = [], [], []
    for seed in range(clients):
        change = _trained(kind, steps, rate, batch, seed)
        weights.append(change[0][:, :WIDTH].double())
        biases.append(change[1].double())
        real.append(change[2].double())
    found, _ = inverted(torch.stack(weights), torch.stack(biases))
    return found, torch.stack(real)


def _trained(
    kind: Literal["sgd", "adam"], steps: int, rate: float, batch: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """What one client's first layer moved by (weight, bias), and its vector before."""
    rng = Generator().manual_seed(seed)
    user = torch.randn(WIDTH, generator=rng) * 0.1
    items = torch.randn(batch, WIDTH, generator=rng) * 0.1
    label = (torch.rand(batch, generator=rng) < 0.2).float()
    sizes = (2 * WIDTH, 64, 32, 16, 1)
    layers = [_layer(*size, rng) for size in pairwise(sizes)]
    own, rows = nn.Parameter(user.clone()), nn.Parameter(items)
    trained = [own, rows, *(part for layer in layers for part in layer)]
    optimizer = (torch.optim.SGD if kind == "sgd" else torch.optim.Adam)(trained, rate)
    before = [part.detach().clone() for part in layers[0]]
    for _ in range(steps):
        optimizer.zero_grad()
        x = torch.cat([own.expand(batch, -1), rows], 1)
        for at, (weight, bias) in enumerate(layers):
            x = x @ weight.T + bias
            x = torch.relu(x) if at < len(layers) - 1 else x
        loss = nn.functional.binary_cross_entropy_with_logits(x[:, 0], label)
        loss.backward()  # type: ignore[no-untyped-call]
        if steps == 1:  # FedSGD sends the gradient itself
            weight, bias = layers[0]
            assert weight.grad is not None
            assert bias.grad is not None
            return weight.grad, bias.grad, user
        optimizer.step()
    after = [part.detach() for part in layers[0]]
    return after[0] - before[0], after[1] - before[1], user


def _layer(width: int, out: int, rng: Generator) -> tuple[nn.Parameter, nn.Parameter]:
    """A layer as PyTorch starts it."""
    bound = width**-0.5
    weight = (2 * torch.rand(out, width, generator=rng) - 1) * bound
    return nn.Parameter(weight), nn.Parameter(torch.zeros(out))


def _measured(settings: RunSettings, method: str, defense: str) -> Row:
    click.echo(f"{method}, {defense}", err=True)
    with Line(settings.seed, settings.seeds) as progress:
        result = execute(settings, True, progress)
    key = "leakage.user_vector."
    figures = {name: result.figures[key + name] for name in METRICS}
    prior = {name: result.references[key + name]["prior"] for name in METRICS}
    return Row(method, defense, figures, prior, result.id)


def _table(rows: Sequence[Row]) -> Table:
    shown = Table(box=None, pad_edge=False)
    shown.add_column("")
    for name in ("cosine", "own cosine", "95 % interval", "signs right", "error"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        if row.defense == DEFENSES[0]:
            shown.add_row(row.method)
            shown.add_row("  mean of the other users, no defense", *_cells(row.prior))
        values = {name: figure.value for name, figure in row.figures.items()}
        interval = _interval(row.figures["own_cosine"])
        shown.add_row(f"  {row.defense}", *_cells(values, interval))
    return shown


def _cells(values: dict[str, float], interval: str = "") -> list[str]:
    cosine, own, signs, error = (values[name] for name in METRICS)
    return [f"{cosine:.4f}", f"{own:.3f}", interval, f"{signs:.3f}", f"{error:.2g}"]


def _interval(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return ""
    return f"{figure.low:.3f} to {figure.high:.3f}"


if __name__ == "__main__":
    main()
