"""From evidence of all uploads to a claim of who interacted with what."""

from dataclasses import dataclass
from math import erfc, sqrt

import torch
from torch import Tensor

from privfed.adversary import Prior
from privfed.attacks.items import amplitude
from privfed.attacks.items.evidence import seen, strength
from privfed.attacks.items.mixture import Mixture
from privfed.guesses import Items
from privfed.interfaces import State

_SOME = Mixture(wrong=(0.5, 0.02, 1e-4))  # how often a sign of each level errs
_SELDOM = 0.02  # chances below it do not add up to an interaction
_FAR = 2.5  # times what is loud: no noise reaches it
_UNLIKELY = 0.1  # what is less likely is not claimed, where anything is likely


@dataclass(frozen=True)
class Verdict:
    """Decides from signs and strengths; ``deviations`` of noise are loud."""

    deviations: float

    def by_sign(self, memory: State) -> Items:
        """Claim what stood out on the positive side; of one upload of each client."""
        clients = seen(memory)
        counts, told = memory["counts"][:, clients], strength(memory, clients)
        came, up = counts.sum(0), counts[1::2].sum(0)
        every = memory["every row"][clients, None]
        chosen = (up > 0) & (~every | (told > self.deviations))
        lowest = told.amin(1, keepdim=True) - 1.0
        return Items(clients, torch.where(came > 0, told, lowest), chosen)

    def by_strength(self, memory: State) -> Items:
        """Claim what stands out of the noise of all uploads."""
        clients = seen(memory)
        times = memory["uploads"][clients, None].double()
        told = strength(memory, clients) / times.sqrt()
        return Items(clients, told, told > self.deviations)

    def by_all(self, memory: State, prior: Prior) -> Items:
        """Claim what is likely after all uploads, and by popularity before them."""
        clients, share = seen(memory), likely(prior)
        counts, times = memory["counts"][:, clients], memory["uploads"][clients]
        up, down = counts[1::2].sum(0), counts[0::2].sum(0)
        every = memory["every row"][clients]
        odds = _SOME.log_odds(counts, times, (up > down).double(), share)
        if every.any():
            told = strength(memory, clients[every])
            told = told / times[every].double().sqrt()[:, None]
            loud = self._loud(told)
            odds[every] = amplitude.log_odds(told, loud, share, usual(prior))
        return Items(clients, odds, most_likely(odds))

    def _loud(self, told: Tensor) -> Tensor:
        """What cannot all be noise, where it is more than noise would make so."""
        loud = told.abs() > self.deviations
        chance = erfc(self.deviations / sqrt(2)) * told.shape[1]
        many = loud.sum(1, keepdim=True) > chance + 5 * sqrt(chance) + 5
        far = told.abs().amax(1, keepdim=True) > _FAR * self.deviations
        return loud & (many | far)


def likely(prior: Prior) -> Tensor:
    """Each item's share of all interactions, as far as is known, (items,) float64."""
    if prior.popularity is None:
        return torch.full((prior.items,), 1 / prior.items, dtype=torch.float64)
    some = prior.popularity.double() + 0.5
    return some / some.sum()


def usual(prior: Prior) -> float:
    """Interactions of a client, as far as is known."""
    if prior.popularity is None:
        return 1.0
    return float(prior.popularity.double().sum()) / prior.clients


def most_likely(odds: Tensor) -> Tensor:
    """As many of the likeliest items as interactions are expected, (clients, items)."""
    chance = odds.sigmoid()
    many = (chance * (chance > _SELDOM)).sum(1).round().long()[:, None]
    rank = odds.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    least = (chance.amax(1, keepdim=True) / 4).clamp_max(_UNLIKELY)
    return (rank < many) & (chance > least)


def most_often(often: Tensor, negatives: int) -> Tensor:
    """Chances to begin with: of what came most often, as much as is not drawn.

    ``often`` (clients, items) is the share of a client's uploads that an item came in;
    what came as often as the last of them shares its chance.
    """
    real = (often.sum(1, keepdim=True) / (1 + negatives)).round().long().clamp_min(1)
    last = often.sort(dim=1, descending=True).values.gather(1, real - 1)
    above, level = often > last, often == last
    left = (real - above.sum(1, keepdim=True)) / level.sum(1, keepdim=True)
    return torch.where(above, 1.0, level * left)
