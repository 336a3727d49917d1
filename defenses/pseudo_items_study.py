"""What made-up items and compressed uploads hide, and what they cost.

    python defenses/pseudo_items_study.py ratings --data ml-100k
    python defenses/pseudo_items_study.py implicit --data ml-100k
    python defenses/pseudo_items_study.py compression --data ml-100k

``ratings``: pseudo_items with several made-up ratings for each real one. ``implicit``:
fedgnn's pseudo rows and noise. ``compression``: bytes beside accuracy and leakage.

Two attacks are of this study. ``recurrent`` claims what a client sent in every one of
its rounds: made-up items are drawn anew. ``aligned`` is sign_pc on the rows that lie
within 20 degrees of the client's axis: made-up rows need not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import click
import torch
from measuring import Bench, measure, tell
from torch.linalg import vector_norm

from privfed.adversary import Attack, Prior
from privfed.attacks.items.sign_pc import SignPC
from privfed.attacks.items.support import Support
from privfed.attacks.reading.axis import principal
from privfed.guesses import Items
from privfed.interfaces import State
from privfed.messages import Rows
from privfed.views import ItemsView, UploadsView, View

RATERS: Mapping[str, int] = {"fedmf": 30, "fedrec:virtual=0": 100}  # rounds
RATINGS: Mapping[str, Sequence[str]] = {
    "none": (),
    "1 for each, mean": ("pseudo_items:share=1,fill=mean",),
    "2 for each, mean": ("pseudo_items:share=2,fill=mean",),
    "3 for each, mean": ("pseudo_items:share=3,fill=mean",),
    "1 for each, hybrid": ("pseudo_items:share=1,fill=hybrid",),
    "2 for each, hybrid": ("pseudo_items:share=2,fill=hybrid",),
    "3 for each, hybrid": ("pseudo_items:share=3,fill=hybrid",),
}
_QUIET = "clip=none,noise=0"
IMPLICIT: Mapping[str, Sequence[str]] = {
    "none": (),
    "300 rows, by dimension": (f"fedgnn:pseudo=300,spread=diagonal,{_QUIET}",),
    "300 rows": (f"fedgnn:pseudo=300,{_QUIET}",),
    "1000 rows": (f"fedgnn:pseudo=1000,{_QUIET}",),
    "1000 rows, noise 0.01": ("fedgnn:pseudo=1000,clip=none,noise=0.01",),
    "as released": ("fedgnn",),
}
COMPRESSION: Sequence[str] = (
    "none",
    "top_k:share=0.5",
    "top_k:share=0.1",
    "top_k:share=0.1,of=numbers",
    "top_k:share=0.01,of=numbers",
    "quantize:bits=8",
    "quantize:bits=4",
    "quantize:bits=2",
    "row_dropout:share=0.5",
    "row_dropout:share=0.9",
)
_LEAKS = {
    "leakage.support.precision": "support\nprec.",
    "leakage.support.f1": "support\nF1",
    "leakage.recurrent.f1": "recurrent\nF1",
    "leakage.sign_pc.f1": "sign_pc\nF1",
    "leakage.sign_pc.auc": "sign_pc\nAUC",
    "leakage.aligned.f1": "aligned\nF1",
}
_COSTS = {"cost.bytes_up": "upload", "cost.client_seconds": "device\ntime"}


@dataclass(frozen=True)
class Recurrent(Attack):
    """Claims the items that a client sent in every round that it took part in."""

    sees = (ItemsView,)
    paper = "this study"

    def start(self, prior: Prior) -> State:
        return {
            "sent": torch.zeros(prior.clients, prior.items),
            "rounds": torch.zeros(prior.clients),
        }

    def observe(self, memory: State, view: View) -> State:
        assert isinstance(view, ItemsView)
        sent = torch.zeros_like(memory["sent"], dtype=torch.bool)
        for sender, item in view.items.values():
            sent[view.clients[sender], item] = True
        memory["sent"].add_(sent)
        memory["rounds"][view.clients] += 1
        return memory

    def guess(self, memory: State, prior: Prior) -> Items:
        seen = (memory["rounds"] > 0).nonzero()[:, 0]
        sent, rounds = memory["sent"][seen], memory["rounds"][seen, None]
        return Items(seen, sent, sent == rounds)


@dataclass(frozen=True)
class Aligned(Attack):
    """Sign-PC on the rows along a client's axis alone."""

    cosine: float = 0.94

    sees = (UploadsView,)
    tasks = ("ranking",)
    knows = SignPC.knows
    paper = "this study"

    def start(self, prior: Prior) -> State:
        return SignPC().start(prior)

    def observe(self, memory: State, view: View) -> State:
        assert isinstance(view, UploadsView)
        count = len(view.clients)
        tables = {n: self._along(r, count) for n, r in view.uploads.rows.items()}
        uploads = replace(view.uploads, rows=tables)
        return SignPC().observe(memory, replace(view, uploads=uploads))

    def guess(self, memory: State, prior: Prior) -> Items:
        return SignPC().guess(memory, prior)

    def _along(self, rows: Rows, clients: int) -> Rows:
        along, *_ = principal(rows, clients, 100)
        length = vector_norm(rows.value, dim=1).clamp_min(1e-30)
        near = along.abs() / length > self.cosine
        return Rows(rows.sender[near], rows.item[near], rows.value[near])


@click.group(help=__doc__)
def main() -> None:
    """One command for each table."""


@main.command()
@click.option("--data", default="ml-100k", show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def ratings(data: str, workers: int, as_json: bool) -> None:
    """Made-up ratings among real ones."""
    attacks: Mapping[str, Attack] = {"support": Support(), "recurrent": Recurrent()}
    every = {"utility.rmse": "RMSE", "utility.mae": "MAE", **_LEAKS, **_COSTS}
    columns = _of(every, attacks)
    tables = {}
    for method, rounds in RATERS.items():
        bench = Bench(method, data, rounds, attacks, columns, workers=workers)
        rows = [measure(bench, name, *chain) for name, chain in RATINGS.items()]
        tables[f"{method} on {data}, {rounds} rounds"] = (bench, rows)
    tell(tables, as_json)


@main.command()
@click.option("--method", default="bpr", show_default=True, help="Any spec.")
@click.option("--data", default="ml-100k", show_default=True)
@click.option("--rounds", default=10, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def implicit(method: str, data: str, rounds: int, workers: int, as_json: bool) -> None:
    """Pseudo rows and Laplace noise."""
    attacks: Mapping[str, Attack] = {
        "support": Support(),
        "recurrent": Recurrent(),
        "sign_pc": SignPC(),
        "aligned": Aligned(),
    }
    columns = {"utility.hr@10": "HR@10", **_LEAKS, **_COSTS}
    bench = Bench(method, data, rounds, attacks, columns, workers=workers)
    rows = [measure(bench, name, *chain) for name, chain in IMPLICIT.items()]
    tell({f"fedgnn: {method} on {data}, {rounds} rounds": (bench, rows)}, as_json)


@main.command()
@click.option("--method", default="bpr", show_default=True, help="Any spec.")
@click.option("--data", default="ml-100k", show_default=True)
@click.option("--rounds", default=100, show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def compression(
    method: str, data: str, rounds: int, workers: int, as_json: bool
) -> None:
    """Smaller uploads."""
    attacks: Mapping[str, Attack] = {"support": Support(), "sign_pc": SignPC()}
    columns = _of({"utility.hr@10": "HR@10", **_LEAKS, **_COSTS}, attacks)
    bench = Bench(method, data, rounds, attacks, columns, workers=workers)
    rows = [
        measure(bench, one, *([] if one == "none" else [one])) for one in COMPRESSION
    ]
    tell({f"{method} on {data}, {rounds} rounds": (bench, rows)}, as_json)


def _of(columns: Mapping[str, str], attacks: Mapping[str, Attack]) -> Mapping[str, str]:
    """The columns of a table whose runs these attacks watch."""
    return {
        key: heading
        for key, heading in columns.items()
        if not key.startswith("leakage") or key.split(".")[1] in attacks
    }


if __name__ == "__main__":
    main()
