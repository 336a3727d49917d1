"""Read the interactions off the item ids, with no look at a value.

A client that sends only the rows it trained on tells the server which items those
are: its interactions and its sampled negatives.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from privfed.adversary import Attack, Prior
from privfed.attacks.items.evidence import count, empty, seen
from privfed.guesses import Items
from privfed.interfaces import State
from privfed.views import ItemsView, View


@dataclass(frozen=True)
class Support(Attack):
    """Interacted-item recovery from the support: claim every item that was sent.

    In a client's ``first`` upload or in any, ranked by how often. Of clients that draw
    new negatives each round ``all`` uploads together hold ever more items:
    ``recurrence`` tells those that come back from those that do not.
    """

    uploads: Literal["all", "first"] = "first"

    sees = (ItemsView,)
    tasks = ("ranking", "rating")
    paper = "folklore"

    def start(self, prior: Prior) -> State:
        return empty(prior.clients, prior.items, 1)

    def observe(self, memory: State, view: View) -> State:
        assert isinstance(view, ItemsView)
        came = sent(view, memory["counts"].shape[2])
        count(memory, view.clients, came, once=self.uploads == "first")
        return memory

    def guess(self, memory: State, prior: Prior) -> Items:
        clients = seen(memory)
        often = memory["counts"][0, clients]
        share = often / memory["uploads"][clients, None]
        return Items(clients, share, often > 0)


def sent(view: ItemsView, items: int) -> Tensor:
    """Which items each client of a view sent in any table, (clients, items) bool."""
    came = torch.zeros(len(view.clients), items, dtype=torch.bool)
    for sender, item in view.items.values():
        came[sender, item] = True
    return came
