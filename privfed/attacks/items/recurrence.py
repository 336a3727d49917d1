"""What comes back is an interaction: items by how often each client sent them.

A client sends the rows of its interactions in every round that it takes part in.
Negatives and made-up items that are drawn anew come by chance. No value is looked at,
so that noise on values, and an encryption that leaves item ids in the clear, change
nothing.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from privfed.adversary import Attack, Knowledge, Prior
from privfed.attacks.items.evidence import count, empty, seen
from privfed.attacks.items.mixture import Mixture
from privfed.attacks.items.support import sent
from privfed.attacks.items.verdict import likely, most_likely, most_often, usual
from privfed.guesses import Items
from privfed.interfaces import State
from privfed.views import ItemsView, View

_MIXTURE = Mixture(faith=20.0)


@dataclass(frozen=True)
class Recurrence(Attack):
    """Interacted-item recovery from the item ids of many uploads.

    The likelihood that an item which came k times in n uploads is one that always
    comes, against one that is drawn at a rate; both rates are fitted to each client.
    How popular an item is tells the rest: all there is where negatives are drawn once
    and for all, or one upload was seen.
    """

    uploads: Literal["all", "first"] = "all"

    sees = (ItemsView,)
    tasks = ("ranking", "rating")
    knows = Knowledge(popularity=True)
    paper = "this project; intersection attacks, Danezis and Serjantov, IH 2004"

    def start(self, prior: Prior) -> State:
        return empty(prior.clients, prior.items, 1)

    def observe(self, memory: State, view: View) -> State:
        assert isinstance(view, ItemsView)
        came = sent(view, memory["counts"].shape[2])
        count(memory, view.clients, came, once=self.uploads == "first")
        return memory

    def guess(self, memory: State, prior: Prior) -> Items:
        clients = seen(memory)
        counts, times = memory["counts"][:, clients], memory["uploads"][clients]
        often = counts[0] / times[:, None]
        first = most_often(often, prior.negatives)
        whole = (often == 1).all(1, keepdim=True)  # every item always: nothing is told
        blind = (likely(prior) * usual(prior)).clamp_max(1.0).to(first)
        first = torch.where(whole, blind, first)
        odds = _MIXTURE.log_odds(counts, times, first, likely(prior))
        chosen = most_likely(odds)
        if prior.negatives == 0:  # as far as is known all that came is real
            chosen |= (counts[0] > 0) & (times == 1)[:, None]
        return Items(clients, odds, chosen)
