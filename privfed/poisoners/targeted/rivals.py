"""What a target competes with in users' lists, and the gradient that lifts it there.

Rong et al., FedRecAttack, ICDE 2022: a user's list holds the best items that the user
is not known for, no target among them. For each target that a user is not known for the
loss is ELU(<u, v_n - v_t>), v_n being the last of the list, for a further target the
one before it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.poisoners.targeted.approximation import Known

_USERS = 64  # users whose scores are held at a time


@dataclass(frozen=True, eq=False)
class Aims:
    """Which target each user is to be shown, and in whose place."""

    user: Tensor  # (aims,)
    target: Tensor  # (aims,)
    place: Tensor  # (aims,) in the user's list; 0 is the best
    hidden: Tensor  # user * items + item of what is in no list, ascending
    size: int  # of a list

    @classmethod
    def of(cls, known: Known, targets: Tensor, size: int) -> "Aims":
        """Every user and every target that it is not known for."""
        everyone = torch.arange(known.users)[:, None]
        size = min(size, known.items)
        fresh = ~known.has(everyone, targets[None])  # (users, targets)
        user, which = fresh.nonzero(as_tuple=True)
        earlier = (fresh.cumsum(1) - 1)[user, which]
        cells = [known.owner * known.items + known.item]
        cells.append((everyone * known.items + targets).flatten())
        hidden = torch.unique(torch.cat(cells))
        return cls(user, targets[which], size - 1 - earlier, hidden, size)

    def lists(self, users: Tensor, table: Tensor) -> Tensor:
        """Each user's best items, the best first: (users, size)."""
        items = len(table)
        starts = torch.arange(0, len(users), _USERS)
        cuts = torch.searchsorted(self.hidden, starts * items).tolist()
        found, room = [], users.new_empty(min(len(users), _USERS), items)
        for k, some in enumerate(torch.split(users, _USERS)):
            score = torch.mm(some, table.T, out=room[: len(some)])
            hidden = self.hidden[slice(*[*cuts, None][k : k + 2])]
            score.view(-1)[hidden - k * _USERS * items] = -torch.inf
            found.append(score.topk(self.size).indices)
        return torch.cat(found)

    def slope(self, users: Tensor, table: Tensor) -> Tensor:
        """The gradient of the loss by every item's row, (items, width)."""
        rival = self.lists(users, table)[self.user, self.place]
        who = users[self.user]
        margin = (who * (table[rival] - table[self.target])).sum(1, keepdim=True)
        push = who * margin.clamp_max(0).exp()  # ELU's slope is 1 above 0
        slope = torch.zeros_like(table).index_add_(0, rival, push)
        return slope.index_add_(0, self.target, -push)
