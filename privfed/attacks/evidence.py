"""What an attacker keeps of each client: the evidence of its first upload."""

import torch
from torch import Tensor

from privfed.interfaces import State
from privfed.views import RoundView


def empty(clients: int, items: int) -> State:
    """No evidence yet: nothing seen of any (client, item)."""
    return {
        "seen": torch.zeros(clients, dtype=torch.bool),
        "score": torch.zeros(clients, items),
        "chosen": torch.zeros(clients, items, dtype=torch.bool),
    }


def fresh(memory: State, view: RoundView) -> Tensor:
    """Positions in the view of clients not seen before."""
    return (~memory["seen"][view.clients]).nonzero()[:, 0]
