"""Read the interactions off the item ids, with no look at a value.

A client that sends only the rows it trained on tells the server which items those
are: its interactions and its sampled negatives.
"""

from dataclasses import dataclass

import torch

from privfed.adversary import Attack, Prior
from privfed.attacks.evidence import empty, fresh
from privfed.guesses import Items
from privfed.interfaces import State
from privfed.views import ItemsView, View


@dataclass(frozen=True)
class Support(Attack):
    """Interacted-item recovery from the support: claim every item that was sent."""

    sees = (ItemsView,)
    tasks = ("ranking", "rating")
    paper = "folklore"

    def start(self, prior: Prior) -> State:
        return empty(prior.clients, prior.items)

    def observe(self, memory: State, view: View) -> State:
        assert isinstance(view, ItemsView)
        new = torch.zeros(len(view.clients), dtype=torch.bool)
        new[fresh(memory, view)] = True
        for sender, item in view.items.values():
            mine = new[sender]
            at = view.clients[sender[mine]], item[mine]
            memory["score"][at] = 1.0
            memory["chosen"][at] = True
        memory["seen"][view.clients] = True
        return memory

    def guess(self, memory: State, prior: Prior) -> Items:
        seen = memory["seen"].nonzero()[:, 0]
        return Items(seen, memory["score"][seen], memory["chosen"][seen])
