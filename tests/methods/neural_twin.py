"""A slow twin of local training: one client, whole tables, torch's own Adam."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, linear

from privfed.data.cohort import cohort_of
from privfed.data.world import World
from privfed.devices.batches import collect
from privfed.devices.negatives import Negatives
from privfed.interfaces import Round, State
from privfed.methods.neural.shared import SharedNeural

Params = dict[str, Tensor]


def logits(p: Mapping[str, Tensor], item: Tensor) -> Tensor:
    """One client's logits; its user row is ``users_*``, (width,)."""
    parts: list[Tensor] = []
    if "items_mf" in p:
        parts.append(p["users_mf"] * p["items_mf"][item])
    if "items_mlp" in p:
        mine = p["users_mlp"].expand(len(item), -1)
        x = torch.cat([mine, p["items_mlp"][item]], dim=1)
        k = 0
        while f"mlp{k}.weight" in p:
            x = linear(x, p[f"mlp{k}.weight"], p[f"mlp{k}.bias"]).relu()
            k += 1
        parts.append(x)
    return linear(torch.cat(parts, dim=1), p["out.weight"], p["out.bias"])[:, 0]


def train_one(
    method: SharedNeural,
    start: State,
    world: World,
    client: int,
    round: Round,
    pull: tuple[float, State] | None = None,
) -> Params:
    """What training makes of one client's tables, user row and dense layers."""
    p = {n: v.double().clone().requires_grad_() for n, v in start.items()}
    adam = torch.optim.Adam([*p.values()], lr=method.learning_rate)
    cohort = cohort_of(world, torch.tensor([client]))
    if not len(cohort.item):
        return {n: v.detach() for n, v in p.items()}
    draws = round.stream.of("negatives")
    samples = collect(cohort, Negatives(method.negatives), draws)
    for epoch in range(method.epochs):
        order = samples.mini(method.batch, round.stream.of("shuffle"), epoch)
        for batch in order:
            real = batch.weight[0] > 0
            label = batch.target[0][real].double()
            out = logits(p, batch.item[0][real])
            loss = binary_cross_entropy_with_logits(out, label)
            grads = torch.autograd.grad(loss, [*p.values()], materialize_grads=True)
            for value, grad in zip(p.values(), grads, strict=True):
                value.grad = grad
            for name, far in (pull[1] if pull else {}).items():
                assert pull is not None
                own = p[name].grad
                assert own is not None
                own += pull[0] * (p[name].detach() - far.double())
            adam.step()
    return {n: v.detach() for n, v in p.items()}


def touched(before: Tensor, after: Tensor) -> list[int]:
    """Items whose row moved."""
    moved: list[int] = (after - before).abs().sum(1).nonzero()[:, 0].tolist()
    return moved
