"""Who took part in which round, as an attack on sums remembers it."""

import torch
from torch import Tensor

from privfed.interfaces import State
from privfed.views import RoundView


def nobody() -> State:
    """No round seen yet; an entry is one client's part in one round."""
    none = torch.zeros(0, dtype=torch.int64)
    return {"came.round": none, "came.client": none}


def came(memory: State, view: RoundView) -> State:
    """The memory with the clients of one shard."""
    rounds = torch.full_like(view.clients, view.round)
    return {
        **memory,
        "came.round": torch.cat([memory["came.round"], rounds]),
        "came.client": torch.cat([memory["came.client"], view.clients]),
    }


def cohorts(memory: State, rounds: Tensor) -> tuple[Tensor, Tensor]:
    """Clients seen, ascending, and who came in which of ``rounds``, as 0 and 1.

    The second is (rounds, clients) float64.
    """
    known = torch.isin(memory["came.round"], rounds)
    clients = torch.unique(memory["came.client"][known])
    order = rounds.argsort()
    place = order[torch.searchsorted(rounds[order], memory["came.round"][known])]
    member = torch.zeros(len(rounds), len(clients), dtype=torch.float64)
    at = torch.searchsorted(clients, memory["came.client"][known])
    member[place, at] = 1.0
    return clients, member
