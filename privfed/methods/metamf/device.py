"""A MetaMF device: predicts with the network it received, and differentiates.

    r^ = relu(x W1' + v1) W2' + v2                 for an item's received row x

Clients and their ratings lie end to end, each rating with its client's weights, so
that every product is one of a single rating: none depends on the shard.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.data.cohort import Cohort
from privfed.data.world import Pairs
from privfed.seeds import Stream


@dataclass(frozen=True, eq=False)
class Network:
    """Each client's own prediction network."""

    first: Tensor  # (clients, layer, width)
    first_bias: Tensor  # (clients, layer)
    second: Tensor  # (clients, 1, layer)
    second_bias: Tensor  # (clients, 1)

    @classmethod
    def of(cls, first: Tensor, second: Tensor, layer: int) -> "Network":
        """From each layer's numbers, weights then biases, (clients, numbers)."""
        clients, ends = len(first), first.shape[1] - layer
        return cls(
            first[:, :ends].reshape(clients, layer, -1),
            first[:, ends:],
            second[:, None, :layer],
            second[:, layer:],
        )

    def flat(self) -> tuple[Tensor, Tensor]:
        """Back to each layer's numbers."""
        return (
            torch.cat([self.first.flatten(1), self.first_bias], 1),
            torch.cat([self.second.flatten(1), self.second_bias], 1),
        )


@dataclass(frozen=True, eq=False)
class Slopes:
    """Gradient of each client's mean squared error with regard to what it received."""

    rows: Tensor  # (ratings, width)
    network: Network
    loss: Tensor  # (clients,)


def predict(network: Network, x: Tensor, sender: Tensor) -> Tensor:
    """Ratings of item rows by their senders' networks, (pairs,)."""
    hidden = _hidden(network, x, sender).relu()
    return _out(network, hidden, sender)


def _hidden(network: Network, x: Tensor, sender: Tensor) -> Tensor:
    weight = network.first.index_select(0, sender)
    products = torch.bmm(x[:, None], weight.transpose(1, 2))[:, 0]
    return products + network.first_bias.index_select(0, sender)


def _out(network: Network, hidden: Tensor, sender: Tensor) -> Tensor:
    weight = network.second.index_select(0, sender)
    products = torch.bmm(weight, hidden[:, :, None])[:, 0]
    return (products + network.second_bias.index_select(0, sender))[:, 0]


def slopes(network: Network, x: Tensor, sender: Tensor) -> tuple[Tensor, Tensor]:
    """Predicted ratings (pairs,), and their derivatives by the rows (pairs, width)."""
    before = _hidden(network, x, sender)
    inner = network.second.index_select(0, sender)[:, 0] * (before > 0)
    rows = torch.bmm(inner[:, None], network.first.index_select(0, sender))[:, 0]
    return _out(network, before.relu(), sender), rows


def differentiate(
    network: Network, x: Tensor, sender: Tensor, label: Tensor, share: Tensor
) -> Slopes:
    """Gradients at a batch of ratings; ``share`` (ratings,) weighs each of them."""
    before = _hidden(network, x, sender)
    hidden = before.relu()
    error = _out(network, hidden, sender) - label
    slope = (2 * error * share)[:, None]
    inner = slope * network.second.index_select(0, sender)[:, 0] * (before > 0)
    rows = torch.bmm(inner[:, None], network.first.index_select(0, sender))[:, 0]
    outer = (inner[:, :, None] * x[:, None]).flatten(1)
    loss = (error.square() * share)[:, None]
    summed = torch.cat([outer, inner, slope * hidden, slope, loss], 1)
    clients = len(network.second_bias)
    each = summed.new_zeros(clients, summed.shape[1]).index_add_(0, sender, summed)
    layer = hidden.shape[1]
    first = x.shape[1] * layer + layer
    return Slopes(
        rows,
        Network.of(each[:, :first], each[:, first:-1], layer),
        each[:, -1],
    )


def shares(sender: Tensor, counts: Tensor, like: Tensor) -> Tensor:
    """Each rating's share of its client's mean, (ratings,) in the dtype of ``like``."""
    return counts.to(like.dtype).clamp_min(1).reciprocal().index_select(0, sender)


def norms(network: Network, x: Tensor, sender: Tensor, label: Tensor) -> Tensor:
    """L2 norm of each rating's whole gradient, (ratings,), without writing it out."""
    before = _hidden(network, x, sender)
    hidden = before.relu()
    slope = (2 * (_out(network, hidden, sender) - label))[:, None]
    inner = slope * network.second.index_select(0, sender)[:, 0] * (before > 0)
    rows = torch.bmm(inner[:, None], network.first.index_select(0, sender))[:, 0]

    def square(of: Tensor) -> Tensor:
        return of.square().sum(1)

    biased = square(inner) * (square(x) + 1) + square(slope) * (square(hidden) + 1)
    return (square(rows) + biased).sqrt()


def sampled(cohort: Cohort, batch: int | None, stream: Stream) -> Pairs:
    """At most ``batch`` of each client's ratings, drawn without replacement."""
    counts = cohort.counts
    own = Pairs(cohort.sender, cohort.item, cohort.label, cohort.context)
    if batch is None or not len(counts) or int(counts.max()) <= batch:
        return own
    start = (counts.cumsum(0) - counts).index_select(0, cohort.sender)
    within = torch.arange(len(start), device=start.device) - start
    order = stream.bits(cohort.clients[cohort.sender], within).argsort(stable=True)
    order = order[cohort.sender[order].argsort(stable=True)]
    at = order[within < batch].sort().values
    return Pairs(*(x[at] for x in (own.sender, own.item, own.label, own.context)))
