"""A slow, obvious twin of every method: one client at a time, whole tables, autograd.

Written from the equations in double precision. It takes the package's draws
(negatives, order of samples, dropout) for the client alone, and nothing else.
"""

from collections.abc import Iterator, Mapping
from math import tanh

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, linear, mse_loss

from privfed.data.cohort import Cohort, cohort_of
from privfed.data.world import World
from privfed.devices.batches import Batch, collect
from privfed.interfaces import START, Round, State
from privfed.methods.backbone import Backbone
from privfed.methods.fedavg import FedAvg
from privfed.methods.fedmr import FedMR
from privfed.methods.fedncf import FedNCF
from privfed.methods.fedrap import FedRAP
from privfed.methods.local_sgd import LocalSGD
from privfed.methods.pfedrec import PFedRec
from privfed.methods.router import dropout_mask

Params = dict[str, Tensor]
TABLES = ("items", "own_items", "items_mf", "items_mlp")
Minibatch = tuple[Tensor, Tensor, Tensor | None]  # items, labels, dropout mask


def core(method: LocalSGD) -> Backbone:
    """The backbone of a method."""
    found = method.core if isinstance(method, FedMR) else method
    assert isinstance(found, Backbone)
    return found


def params_of(model: State, private: State, client: int) -> Params:
    """One client's own copy of everything that it trains."""
    own = {n: v.double() for n, v in model.items() if not n.endswith(START)}
    for name, value in private.items():
        mine = value[client].double()
        start = model.get(name + START)
        own[name] = mine if start is None else mine + start.double()
    return {name: value.clone().requires_grad_() for name, value in own.items()}


def lin(p: Params, name: str, x: Tensor) -> Tensor:
    return linear(x, p[f"{name}.weight"], p[f"{name}.bias"])


def fused(
    method: FedMR, p: Params, ids: Tensor, raw: Mapping[str, Tensor]
) -> list[Tensor]:
    """The experts' outputs o1, o2, o3 for some items."""
    inputs = {"id": ids, **raw}
    chosen = method.modalities.split("+")
    x = {
        m: lin(p, f"project.{m}", v if chosen == ["all"] or m in chosen else 0 * v)
        for m, v in inputs.items()
    }
    found: list[Tensor] = []
    if method.fusion in ("sum", "mix"):
        found.append(x["id"] + x["image"] + x["text"])
    if method.fusion in ("mlp", "mix"):
        both = torch.cat([x["id"], x["image"], x["text"]], 1)
        found.append(lin(p, "expert.mlp1", lin(p, "expert.mlp0", both).relu()))
    if method.fusion in ("gate", "mix"):
        gates = [lin(p, f"expert.gate.{m}", v).sigmoid() * v for m, v in x.items()]
        found.append(lin(p, "expert.gate", torch.cat(gates, 1)))
    return found


def mixture(p: Params, outputs: list[Tensor], keep: Tensor | None) -> Tensor:
    """What each item asks of each expert, (items, 3)."""
    hidden = lin(p, "router0", torch.cat(outputs, 1)).relu()
    if keep is not None:
        hidden = hidden * keep / 0.5
    return lin(p, "router1", hidden).softmax(1)


def omega(
    method: FedMR, p: Params, outputs: list[Tensor], keep: Tensor | None, mine: Tensor
) -> Tensor:
    """The client's weights of the experts, (1 or items, 3), from its own items."""
    each = mixture(p, outputs, keep)
    if method.router == "item":
        return each
    if not mine.any():
        return torch.full((1, 3), 1 / 3, dtype=torch.float64)
    return each[mine].mean(0, keepdim=True)


def logits(method: LocalSGD, p: Params, x: Tensor | None, item: Tensor) -> Tensor:
    """The head's logits; ``x`` is the fused vector, or None outside FedMR."""
    if isinstance(core(method), FedNCF):
        extra = torch.zeros((), dtype=torch.float64) if x is None else x
        mf, mlp = p["items_mf"][item] + extra, p["items_mlp"][item] + extra
        hidden = torch.cat([p["user_mlp"].expand_as(mlp), mlp], 1)
        for layer in ("mlp0", "mlp1", "mlp2"):
            hidden = lin(p, layer, hidden).relu()
        return lin(p, "out", torch.cat([hidden, p["user_mf"] * mf], 1))[:, 0]
    if x is None:
        x = id_vector(method, p, item)
    return x @ p["head.weight"][0] + p["head.bias"]


def id_vector(method: LocalSGD, p: Params, item: Tensor) -> Tensor:
    x = p["items"][item]
    return x + p["own_items"][item] if isinstance(core(method), FedRAP) else x


def loss(
    method: LocalSGD, p: Params, world: World, batch: Minibatch, number: int
) -> Tensor:
    """Mean loss of one batch of one client."""
    item, label, keep = batch
    x = None
    if isinstance(method, FedMR):
        raw = {n: f[item].double() for n, f in world.features.items()}
        outputs = fused(method, p, id_vector(method, p, item), raw)
        x = outputs[0]
        if method.fusion == "mix":
            w = omega(method, p, outputs, keep, label > 0)
            x = sum((w[:, k, None] * o for k, o in enumerate(outputs)), 0 * x)
    logit = logits(method, p, x, item)
    value = binary_cross_entropy_with_logits(logit, label)
    backbone = core(method)
    if isinstance(backbone, FedRAP):
        on = {"tanh": tanh(number / 10), "const": 1.0, "off": 0.0}[backbone.schedule]
        c, d = p["items"][item], p["own_items"][item]
        apart, sparse = on * backbone.apart, on * backbone.sparse
        value = value - apart * mse_loss(d, c) + sparse * c.abs().mean()
    return value


def rate(method: LocalSGD, name: str, items: int, number: int) -> float:
    """The learning rate of one tensor."""
    backbone = core(method)
    lr = method.learning_rate
    if isinstance(backbone, FedRAP):
        lr *= 0.97**number
    if name not in TABLES:
        return lr
    return lr * backbone.item_rate * (1 if isinstance(backbone, FedAvg) else items)


def drawn(method: LocalSGD, cohort: Cohort, round: Round) -> Iterator[Minibatch]:
    """One client's batches of all epochs, with the package's own draws."""
    samples = collect(cohort, method.sampling(), round.stream.of("negatives"))
    once = samples.slot[0][samples.real[0]]  # (positives, 1 + negatives)
    item = samples.item[0][once.flatten()]
    label = torch.zeros(once.shape, dtype=torch.float64)
    label[:, 0] = 1.0
    for epoch in range(method.epochs):
        if samples.slot[0].numel() <= method.batch:
            keep = dropout(method, cohort, samples.full(), round, epoch)
            mask = None if keep is None else keep[once.flatten()]
            yield item, label.flatten(), mask
            continue
        for batch in samples.mini(method.batch, round.stream.of("shuffle"), epoch):
            real = batch.weight[0] > 0
            keep = dropout(method, cohort, batch, round, epoch)
            mask = None if keep is None else keep[real]
            yield batch.item[0][real], batch.target[0][real].double(), mask


def dropout(
    method: LocalSGD, cohort: Cohort, batch: Batch, round: Round, epoch: int
) -> Tensor | None:
    if not isinstance(method, FedMR) or not method.dropout:
        return None
    stream = round.stream.of("dropout", epoch)
    samples = batch.start + torch.arange(batch.item.shape[1])[None]
    return dropout_mask(stream, cohort.clients, samples, method.width)[0]


def train_one(
    method: LocalSGD, p: Params, world: World, client: int, round: Round
) -> Params:
    """Local training of one client, by plain SGD."""
    cohort = cohort_of(world, torch.tensor([client]))
    if not len(cohort.item):
        return p
    turns = [list(p)]
    if isinstance(core(method), PFedRec):  # the head first, then all else
        head = [name for name in p if name.startswith("head")]
        turns = [head, [name for name in p if name not in head]]
    for batch in drawn(method, cohort, round):
        for turn in turns:
            names = list(p)
            grads = torch.autograd.grad(
                loss(method, p, world, batch, round.number),
                [p[n] for n in names],
                materialize_grads=True,
            )
            for name, grad in zip(names, grads, strict=True):
                if name in turn:
                    step = rate(method, name, world.shape.items, round.number) * grad
                    p[name] = (p[name] - step).detach().requires_grad_()
    return p


def train_all(
    method: LocalSGD, model: State, private: State, world: World, round: Round
) -> tuple[list[Params], State]:
    """Every client after its local training, and the server's next model."""
    after = [
        train_one(method, params_of(model, private, u), world, u, round)
        for u in range(world.shape.clients)
    ]
    weight = torch.ones(len(after), dtype=torch.float64)
    if isinstance(core(method), FedAvg):
        weight = world.train.counts.double()
    share = weight / weight.sum()
    mean = {
        name: sum(
            (s * p[name].detach() for s, p in zip(share, after, strict=True)),
            torch.zeros((), dtype=torch.float64),
        )
        for name in model
        if not name.endswith(START)
    }
    return after, mean


def score_one(method: LocalSGD, p: Params, world: World, client: int) -> Tensor:
    """Scores of all items for one client."""
    every = torch.arange(world.shape.items)
    x = None
    if isinstance(method, FedMR):
        raw = {n: f.double() for n, f in world.features.items()}
        outputs = fused(method, p, id_vector(method, p, every), raw)
        x = outputs[0]
        if method.fusion == "mix":
            mine = torch.zeros(len(every), dtype=torch.bool)
            mine[cohort_of(world, torch.tensor([client])).item] = True
            w = omega(method, p, outputs, None, mine)
            x = sum((w[:, k, None] * o for k, o in enumerate(outputs)), 0 * x)
    return logits(method, p, x, every).detach()
