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
from privfed.poisoners.targeted.ranked import BLOCKS, ranked

_USERS = 256  # users whose scores are held at a time
_LEAST = torch.finfo(torch.float32).min  # above what only fills the room


@dataclass(frozen=True, eq=False)
class Aims:
    """Which target each user is to be shown, and in whose place."""

    user: Tensor  # (aims,) ascending
    target: Tensor  # (aims,)
    place: Tensor  # (aims,) in the user's list; 0 is the best
    hidden: Tensor  # user * room + item of what is in no list, ascending
    size: int  # of a list
    room: int  # for a user's scores

    @classmethod
    def of(cls, known: Known, targets: Tensor, size: int) -> "Aims":
        """Every user and every target that it is not known for."""
        everyone = torch.arange(known.users)[:, None]
        size, room = min(size, known.items), -(-known.items // BLOCKS) * BLOCKS
        fresh = ~known.has(everyone, targets[None])  # (users, targets)
        user, which = fresh.nonzero(as_tuple=True)
        earlier = (fresh.cumsum(1) - 1)[user, which]
        cells = [known.owner * room + known.item]
        cells.append((everyone * room + targets).flatten())
        hidden = torch.unique(torch.cat(cells))
        place = size - 1 - earlier
        return cls(user, targets[which], place, hidden, size, room)

    def rivals(self, users: Tensor, table: Tensor) -> Tensor:
        """The item in whose place each target is to be shown, (aims,)."""
        found, scores = [], users.new_full((_USERS, self.room), -torch.inf)
        edges = torch.arange(0, len(users) + _USERS, _USERS)
        aims = torch.searchsorted(self.user, edges).tolist()
        hidden = torch.searchsorted(self.hidden, edges * self.room).tolist()
        for k, some in enumerate(torch.split(users, _USERS)):
            score = scores[: len(some)]
            torch.mm(some, table.T, out=score[:, : len(table)])
            cells = self.hidden[hidden[k] : hidden[k + 1]] - k * _USERS * self.room
            score.view(-1)[cells] = _LEAST
            mine = slice(aims[k], aims[k + 1])
            row = self.user[mine] - k * _USERS
            found.append(ranked(score, row, self.place[mine], self.size))
        return torch.cat(found)

    def slope(self, users: Tensor, table: Tensor) -> Tensor:
        """The gradient of the loss by every item's row, (items, width)."""
        rival = self.rivals(users, table)
        who = users.index_select(0, self.user)
        lead = table.index_select(0, rival) - table.index_select(0, self.target)
        margin = (who * lead).sum(1, keepdim=True)
        push = who * margin.clamp_max(0).exp()  # ELU's slope is 1 above 0
        slope = torch.zeros_like(table).index_add_(0, rival, push)
        return slope.index_add_(0, self.target, -push)
