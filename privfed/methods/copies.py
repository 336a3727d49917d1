"""A shard's own copies of the round's model, and what local training did to them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from privfed.devices.batches import Samples
from privfed.devices.frozen import Frozen
from privfed.devices.gradients import Local
from privfed.devices.low_rank import LowRank, pays
from privfed.interfaces import START, State
from privfed.methods.parts import Part


def own_copies(
    parts: Sequence[Part],
    model: State,
    private: State,
    samples: Samples,
    fixed: Mapping[str, Tensor],
    steps: int,
) -> Local:
    """Each client's copy of all that it trains.

    ``fixed`` maps shared layers to the public features that they read. ``steps``
    counts the steps that see every sample; 0 where a step sees a part.
    """
    clients = samples.cohort.clients
    rows: dict[str, Tensor] = {}
    dense: dict[str, Tensor] = {}
    frozen: dict[str, Frozen] = {}
    low_rank: dict[str, LowRank] = {}
    most = steps * max(samples.item.shape[1], samples.slot.shape[1])
    for part in parts:
        if part.name in fixed:
            name = part.name
            weight, bias = model[f"{name}.weight"], model[f"{name}.bias"]
            frozen[name] = Frozen.of(samples, fixed[name], weight, bias)
            rows[name] = torch.zeros_like(frozen[name].start)
        elif part.kind == "rows" and part.private:
            changed = private[part.name][clients[:, None], samples.item]
            rows[part.name] = changed + model[part.name + START][samples.item]
        elif part.kind == "rows":
            rows[part.name] = model[part.name][samples.item]
        elif part.kind == "layer" and steps and pays(part.size, most):
            weight, bias = (
                _start(name, model, private, clients) for name in _names(part.name)
            )
            low_rank[part.name] = LowRank.of(weight, bias, most)
        else:
            names = _names(part.name) if part.kind == "layer" else (part.name,)
            for name in names:
                start = _start(name, model, private, clients)
                dense[name] = start.clone(memory_format=torch.contiguous_format)
    return Local(rows, dense, frozen, low_rank)


def _start(name: str, model: State, private: State, clients: Tensor) -> Tensor:
    """A layer's or vector's value at the start of a round, (clients, ...)."""
    if name in model:
        return model[name].expand(len(clients), *model[name].shape)
    return private[name][clients]


def changes(
    local: Local, model: State, private: State, clients: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What layers and vectors shared by all moved by, and what private ones are now."""
    shared: dict[str, Tensor] = {}
    own: dict[str, Tensor] = {}
    for name, value in local.dense.items():
        if name in model:
            shared[name] = value - model[name]
        else:
            own[name] = value
    found = {n: layer.change(local.rows[n]) for n, layer in local.frozen.items()}
    found |= {n: layer.change() for n, layer in local.low_rank.items()}
    for layer, change in found.items():
        for name, value in zip(_names(layer), change, strict=True):
            if name in model:
                shared[name] = value
            else:
                own[name] = private[name][clients] + value
    return shared, own


def _names(layer: str) -> tuple[str, str]:
    return f"{layer}.weight", f"{layer}.bias"
