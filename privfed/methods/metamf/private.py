"""A MetaMF device by DP-SGD, with one record = one rating.

What a rating's gradient reaches is what the server made for this client: the row of
its item and the small network. Both are clipped together and noised, the rows of all
items that were not rated too. The server only passes on what it is sent.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.data.cohort import Cohort
from privfed.devices.dpsgd import InteractionDP, NoiseSource
from privfed.interfaces import Round
from privfed.messages import Rows, every, summed
from privfed.methods.metamf.device import (
    Network,
    differentiate,
    norms,
    shares,
)
from privfed.seeds import Stream


@dataclass(frozen=True, eq=False)
class Ratings:
    """A shard's ratings, as their clients meet them."""

    cohort: Cohort
    network: Network
    x: Tensor  # (ratings, width) rows received
    label: Tensor  # (ratings,)

    @property
    def sender(self) -> Tensor:
        return self.cohort.sender


def private_slopes(of: Ratings, round: Round) -> tuple[Rows, Network, Tensor]:
    """Noised gradients of every item's row and of the network, and losses (clients,).

    A device takes no local step: a round's steps are all at the same point, and what
    is sent is their mean.
    """
    rule, cohort = round.privacy, of.cohort
    assert rule is not None
    clients, items = len(cohort.clients), cohort.shape.items
    table = of.x.new_zeros(clients, items, of.x.shape[1])
    network = (torch.zeros(()), torch.zeros(()))
    for number in range(rule.steps):
        share = _shares(of, rule, round.stream.of("poisson", number)) / rule.steps
        slopes = differentiate(of.network, of.x, of.sender, of.label, share)
        rows = summed(of.sender, cohort.item, slopes.rows, items)
        table[rows.sender, rows.item] += rows.value
        source = NoiseSource(round.stream.of("dp"), cohort.clients, number)
        noise = rule.noise / rule.steps
        table += source("rows items", table) * noise
        first, second = (
            before + value + source(f"dense {k}", value) * noise
            for k, (before, value) in enumerate(
                zip(network, slopes.network.flat(), strict=True)
            )
        )
        network = first, second
    mean = shares(of.sender, cohort.counts, of.x)
    loss = differentiate(of.network, of.x, of.sender, of.label, mean).loss
    layer = of.network.first.shape[1]
    return every(table), Network.of(*network, layer), loss


def _shares(of: Ratings, rule: InteractionDP, stream: Stream) -> Tensor:
    """What each rating counts: 0 where it is not drawn, less where it is clipped."""
    counts = of.cohort.counts
    start = (counts.cumsum(0) - counts).index_select(0, of.sender)
    within = torch.arange(len(start), device=start.device) - start
    chance = stream.uniform(of.cohort.clients[of.sender], within)
    taken = (chance < rule.sampling_rate).to(of.x.dtype)
    length = norms(of.network, of.x, of.sender, of.label)
    return taken * (rule.clip / length.clamp_min(1e-12)).clamp_max(1.0) / rule.expected
