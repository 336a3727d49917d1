"""NeuMF and its two halves, and how each client of a shard trains a copy of its own.

He et al., Neural Collaborative Filtering, WWW 2017: a product branch (GMF), an MLP
branch, or both side by side (NeuMF), under one output layer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn.functional import softplus

from privfed.checks import at_least, positive
from privfed.data.world import Shape
from privfed.devices.adam import LocalRule, Optimizer
from privfed.devices.batches import Samples, padded
from privfed.devices.neumf import Layout, Network, clip, merge
from privfed.devices.schedule import Schedule, Step, schedule
from privfed.interfaces import State
from privfed.messages import Rows
from privfed.seeds import Stream

__all__ = ["Fitted", "LocalRule", "Neural", "fit"]

_ITEMS = 512  # items scored at a time, which bounds (clients, items, width)


@dataclass(frozen=True)
class Neural:
    """A neural recommender: embedding tables and dense layers, by name.

    Tables are ``users_mf``, ``items_mf`` (``width`` wide, the product branch) and
    ``users_mlp``, ``items_mlp`` (half of ``layers[0]`` wide). Dense layers are
    ``mlp0``, ``mlp1``, ... and ``out``, each a ``.weight`` (out, in) and a ``.bias``
    (out,). Embeddings start as N(0, ``std``^2), layers as PyTorch starts them.
    """

    kind: Literal["gmf", "mlp", "neumf"] = "neumf"
    width: int = 16
    layers: tuple[int, ...] = (64, 32, 16, 8)
    std: float = 1.0

    def __post_init__(self) -> None:
        at_least(self, 1, "width")
        if len(self.layers) < 2 or min(self.layers) < 1 or self.layers[0] % 2:
            raise ValueError(
                "layers needs two sizes or more, the first of them even (a user's and "
                f"an item's half), got {self.layers}"
            )
        positive(self, "std")

    def tables(self) -> Mapping[str, int]:
        """Width of the embedding of each branch: "mf", "mlp" or both."""
        both = {"mf": self.width, "mlp": self.layers[0] // 2}
        absent = {"gmf": "mlp", "mlp": "mf"}.get(self.kind)
        return {name: width for name, width in both.items() if name != absent}

    def dense(self) -> Mapping[str, tuple[int, int]]:
        """Size (out, in) of each dense layer, in order: "mlp0", ..., "out"."""
        found = {}
        if self.kind != "gmf":
            sizes = zip(self.layers[1:], self.layers, strict=False)
            found = {f"mlp{k}": size for k, size in enumerate(sizes)}
        product = 0 if self.kind == "mlp" else self.width
        return found | {"out": (1, product + (self.layers[-1] if found else 0))}

    def layout(self) -> Layout:
        """The same widths, as training on the devices needs them."""
        tables = self.tables()
        hidden = self.layers[1:] if "mlp" in tables else ()
        return Layout(tables.get("mf", 0), tables.get("mlp", 0), hidden)

    def init(self, shape: Shape, stream: Stream) -> State:
        """``users_*`` (clients, w), ``items_*`` (items, w) and the dense layers."""
        rng = stream.generator()
        found: dict[str, Tensor] = {}
        for kind, count in (("users", shape.clients), ("items", shape.items)):
            for name, width in self.tables().items():
                drawn = torch.randn((count, width), generator=rng, device="cpu")
                found[f"{kind}_{name}"] = drawn * self.std
        for name, (out, width) in self.dense().items():
            found[f"{name}.weight"] = _uniform((out, width), width, rng)
            found[f"{name}.bias"] = _uniform((out,), width, rng)
        device = torch.get_default_device()
        return {name: value.to(device) for name, value in found.items()}

    def scores(self, model: State, users: State) -> Tensor:
        """Logits of every item, (clients, items), computed a few items at a time.

        ``model`` holds ``items_*`` and the dense layers, which are shared, or have a
        leading clients axis where each client has its own. ``users`` holds the
        clients' rows ``users_*``, (clients, w).
        """
        layer = {n: v.mT for n, v in model.items() if n.endswith(".weight")}
        own = layer["out.weight"].dim() == 3

        def bias(name: str) -> Tensor:
            return model[f"{name}.bias"][:, None] if own else model[f"{name}.bias"]

        tables, found = self.tables(), []
        split = tables.get("mf", 0)
        if "mlp" in tables:
            width = tables["mlp"]
            below, above = torch.split(layer["mlp0.weight"], width, -2)
            first = users["users_mlp"][:, None] @ below + bias("mlp0")
        count = next(v.shape[0] for n, v in model.items() if n.startswith("items_"))
        for start in range(0, count, _ITEMS):
            part = slice(start, start + _ITEMS)
            out = model["out.bias"].view(-1, 1, 1)
            if split:
                weight = layer["out.weight"][..., :split, 0] * users["users_mf"]
                out = out + weight[:, None] @ model["items_mf"][part].T
            if "mlp" in tables:
                x = (model["items_mlp"][part] @ above + first).relu_()
                for k in range(1, len(self.layers) - 1):
                    x = (x @ layer[f"mlp{k}.weight"]).add_(bias(f"mlp{k}")).relu_()
                out = out + (x @ layer["out.weight"][..., split:, :]).mT
            found.append(out[:, 0])
        return torch.cat(found, 1)

    def footprint(
        self, shape: Shape, positives: int, negatives: int, epochs: int
    ) -> int:
        """Bytes that ``fit`` needs for one client of so many (padded) positives."""
        layout, samples = self.layout(), positives * (1 + negatives)
        rows = padded(min(samples, shape.items) + 1)
        numbers = 7 * rows * layout.width + 6 * layout.length
        return 4 * numbers + (60 + 120 * epochs) * samples


@dataclass(frozen=True)
class Fitted:
    """What local training made of a shard.

    ``rest`` is the factor by which weight decay shrank every row that a client did
    not touch, 1 without decay. The values of ``rows`` are trained rows minus ``rest``
    times the rows received. ``users`` and ``dense`` are new values, not changes.
    """

    users: Mapping[str, Tensor]  # users_*: (clients, w)
    rows: Mapping[str, Rows]  # items_*
    dense: Mapping[str, Tensor]  # (clients, ...)
    rest: Tensor  # (clients,)
    loss: Tensor  # (clients,) mean loss of each client's last step


def fit(
    neural: Neural,
    items: State,
    start: State,
    samples: Samples,
    rule: LocalRule,
    stream: Stream,
    pull: tuple[float, State] | None = None,
) -> Fitted:
    """Train a shard, each client on its own samples from its own start.

    ``items`` holds the shared tables ``items_*`` that all clients received. ``start``
    holds each client's ``users_*`` rows and dense layers, all with a leading clients
    axis (an expanded view will do). ``stream`` orders the samples, anew each epoch.
    ``pull`` = (strength, reference) adds strength * (value - reference) to the
    gradient of ``users_*`` and dense layers before clipping (Ditto); the reference is
    shaped as ``start``. No argument is changed. Computes in the tables' dtype.
    """
    layout = neural.layout()
    table = torch.cat([items[f"items_{name}"] for name in neural.tables()], 1)
    plan = schedule(samples, rule.epochs, rule.batch, stream, table.dtype)
    rows = table.index_select(0, plan.item)  # (rows, width)
    vectors = layout.pack({n: v[plan.clients] for n, v in start.items()})
    towards = None
    if pull is not None:
        aim = layout.pack({n: v[plan.clients] for n, v in pull[1].items()})
        towards = (pull[0], aim)
    with torch.no_grad():
        loss = _train(layout, plan, rule, rows, vectors, towards)
    rest = rule.rest(plan.steps, table)
    return _fitted(neural, plan, table, (rows, vectors, rest, loss))


def _train(
    layout: Layout,
    plan: Schedule,
    rule: LocalRule,
    rows: Tensor,
    vectors: Tensor,
    pull: tuple[float, Tensor] | None,
) -> Tensor:
    """All steps, in place; return each client's last loss, (clients,)."""
    loss = vectors.new_zeros(len(vectors))
    optimizer = Optimizer(rule, rows, vectors, len(plan.every))
    network: Network | None = None
    for step in plan.every:
        active = step.active
        if network is None or network.clients != active:
            mine = vectors[:active]
            network = Network(layout, mine, step.target.shape[1])
        logit = network.logits(rows, step.row)
        if step.last:
            loss[:active] = _cross_entropy(logit, step)
        delta = logit.sigmoid_().sub_(step.target).mul_(step.share)
        slope, vector = network.slopes(delta)
        if pull is not None:
            vector.add_(mine - pull[1][:active], alpha=pull[0])
        merge(slope.view(-1, layout.width), step)
        if rule.clip is not None:
            clip((slope, vector), rule.clip)
        slope = slope.view(-1, layout.width)
        optimizer.step(step.number, step.rows, step.place, slope, vector)
    return loss


def _cross_entropy(logit: Tensor, step: Step) -> Tensor:
    return ((softplus(logit) - logit * step.target) * step.share).sum(1)


def _fitted(
    neural: Neural,
    plan: Schedule,
    table: Tensor,
    trained: tuple[Tensor, Tensor, Tensor, Tensor],
) -> Fitted:
    """Back to the cohort's order, tables apart."""
    rows, vectors, rest, loss = trained
    rank = torch.empty_like(plan.clients)
    rank[plan.clients] = torch.arange(len(rank))
    by_client = plan.sender.argsort(stable=True)
    kept = by_client[plan.real[by_client]]
    sender, item = plan.sender[kept], plan.item[kept]
    rest = rest[rank]
    received = table.index_select(0, item)
    moved = rows.index_select(0, kept) - rest[sender, None] * received
    widths = list(neural.tables().values())
    names = [f"items_{name}" for name in neural.tables()]
    parts = zip(names, torch.split(moved, widths, 1), strict=True)
    values = neural.layout().unpack(vectors[rank])
    return Fitted(
        {n: v for n, v in values.items() if n.startswith("users_")},
        {name: Rows(sender, item, part.contiguous()) for name, part in parts},
        {n: v for n, v in values.items() if not n.startswith("users_")},
        rest,
        loss[rank],
    )


def _uniform(size: tuple[int, ...], fan_in: int, rng: Generator) -> Tensor:
    drawn = torch.rand(size, generator=rng, device="cpu")
    return (2 * drawn - 1) / sqrt(fan_in)
