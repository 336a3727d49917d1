"""FedMR's private router: how a client, or each item, mixes the fusion's experts.

The mixture of a client is the mean, over the items it interacted with, of a softmax
over experts. Under DP-SGD each item has its own, because a mean over a client's items
ties its interactions together.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from privfed.data.cohort import Cohort
from privfed.devices.tape import Tape
from privfed.interfaces import State
from privfed.methods.fusion import Linear
from privfed.seeds import Stream

_LANES = 32  # dropout bits taken from one random word


def trained(
    tape: Tape,
    outputs: Sequence[Tensor],
    clients: Tensor,
    draws: Stream | None,
    by_item: bool,
) -> Tensor:
    """The mixture while training, (clients, 1 or samples, experts).

    ``draws`` are those of dropout, None without it. Where samples are known to be
    positives, no other goes through the router.
    """
    batch, width = tape.batch, outputs[0].shape[2]
    chosen, hits = batch.positive, batch.weight * batch.target
    if chosen is None or by_item:
        chosen = torch.arange(hits.shape[1]).expand_as(hits)
    else:
        real, chosen = chosen >= 0, chosen.clamp_min(0)
        hits = hits.gather(1, chosen) * real
        at = chosen[..., None].expand(-1, -1, width)
        outputs = [out.gather(1, at) for out in outputs]
    keep = None
    if draws is not None:
        keep = dropout_mask(draws, clients, chosen + batch.start, width)
    share = route(tape.linear, outputs, keep)
    if by_item:
        return share
    hits = hits[..., None]
    return _mean((share * hits).sum(1), hits.sum(1))[:, None]


def learned(
    private: State, cohort: Cohort, outputs: Sequence[Tensor], by_item: bool
) -> Tensor:
    """The mixture for scoring, (clients, 1 or items, experts)."""

    def linear(name: str, x: Tensor) -> Tensor:
        weight = private[f"{name}.weight"][cohort.clients]
        bias = private[f"{name}.bias"][cohort.clients][:, None]
        return x @ weight.transpose(1, 2) + bias

    if by_item:
        return route(linear, outputs, None)
    each = route(_of_sender(private, cohort), _of_item(outputs, cohort), None)
    clients = len(cohort.clients)
    total = each.new_zeros(clients, each.shape[-1])
    total.index_add_(0, cohort.sender, each)
    return _mean(total, cohort.counts[:, None])[:, None]


def route(linear: Linear, outputs: Sequence[Tensor], keep: Tensor | None) -> Tensor:
    """How much each item asks of each expert: softmax, (..., experts).

    ``keep`` is the dropout mask (rate 1/2) of the hidden layer while training.
    """
    hidden = torch.relu(linear("router0", torch.cat(list(outputs), dim=-1)))
    if keep is not None:
        hidden = hidden * keep * 2.0
    return torch.softmax(linear("router1", hidden), dim=-1)


def mix(outputs: Sequence[Tensor], share: Tensor) -> Tensor:
    """Weighted sum of the experts; ``share`` is (..., experts)."""
    first, *others = (out * share[..., k, None] for k, out in enumerate(outputs))
    return sum(others, first)


def dropout_mask(
    stream: Stream, clients: Tensor, samples: Tensor, width: int
) -> Tensor:
    """Units to keep at rate 1/2, (clients, samples, width): a random bit each.

    ``samples``, (clients, samples), numbers the samples in their epoch.
    """
    words = -(-width // _LANES)
    counter = (samples[..., None] * words + torch.arange(words)).flatten(1)
    bits = stream.bits(clients[:, None], counter)
    lanes = (bits[..., None] >> torch.arange(_LANES)) & 1
    return lanes.view(len(clients), samples.shape[1], -1)[..., :width].float()


def _mean(total: Tensor, count: Tensor) -> Tensor:
    """Mean mixture of each client, (clients, experts); even where it has no item."""
    mean = total / count.clamp_min(1)
    return torch.where(count > 0, mean, 1 / total.shape[-1])


def _of_item(outputs: Sequence[Tensor], cohort: Cohort) -> list[Tensor]:
    """Expert outputs of each interaction's item, (interactions, width)."""
    if len(outputs[0]) == 1:
        return [out[0, cohort.item] for out in outputs]
    return [out[cohort.sender, cohort.item] for out in outputs]


def _of_sender(private: State, cohort: Cohort) -> Linear:
    """Each interaction's own client's layer, applied to (interactions, in)."""

    def linear(name: str, x: Tensor) -> Tensor:
        weight = private[f"{name}.weight"][cohort.clients]
        bias = private[f"{name}.bias"][cohort.clients]
        out = x.new_empty(len(x), weight.shape[1])
        for part in torch.split(torch.arange(len(x)), 2048):
            who = cohort.sender[part]
            out[part] = torch.bmm(weight[who], x[part][..., None])[..., 0] + bias[who]
        return out

    return linear
