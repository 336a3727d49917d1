"""Sign-PC: positives and negatives point in opposite directions along one axis.

For an implicit recommender every uploaded item row is (sigmoid(s) - y) times one
direction of the client, so the sign of a row's first principal component separates
what the client interacted with from what it drew as negatives.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.attacks.evidence import empty, fresh
from privfed.interfaces import Attack, Knowledge, State
from privfed.messages import Rows
from privfed.views import Guess, Prior, UploadsView, View


@dataclass(frozen=True)
class SignPC(Attack):
    """Interacted-item recovery from one upload, by the sign of the first component.

    Orientation: with more than one negative a positive the smaller group is the
    positives; with one, the group that is more popular. Where a client sends every
    row, as under noise on all rows, only those that stand ``deviations`` out of the
    noise are read, whose scale is seen off the axis. ``power`` bounds the power
    iterations for the principal direction.
    """

    power: int = 30
    deviations: float = 3.0

    sees = (UploadsView,)
    tasks = ("ranking",)
    knows = Knowledge(popularity=True)
    paper = "sign-PC (this project); iDLG's label rule, Zhao et al., 2020"

    def start(self, prior: Prior) -> State:
        start = dict(empty(prior.clients, prior.items))
        if prior.popularity is not None:
            start["popularity"] = prior.popularity.float()
        start["negatives"] = torch.tensor(prior.negatives)
        return start

    def observe(self, memory: State, view: View) -> State:
        assert isinstance(view, UploadsView)
        new = fresh(memory, view)
        if not len(new):
            return memory
        best, claim, strength = _nothing(len(view.clients), memory["score"].shape[1])
        for rows in view.uploads.rows.values():
            score, chosen, explained = self._read(rows, len(view.clients), memory)
            better = (explained > strength)[:, None]
            best = torch.where(better, score, best)
            claim = torch.where(better, chosen, claim)
            strength = torch.maximum(explained, strength)
        memory["score"][view.clients[new]] = best[new]
        memory["chosen"][view.clients[new]] = claim[new]
        memory["seen"][view.clients] = True
        return memory

    def _read(
        self, rows: Rows, clients: int, memory: State
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scores and claims (clients, items), and the share of energy explained."""
        items = memory["score"].shape[1]
        along, explained = principal(rows, clients, self.power)
        told = along.abs() > self.deviations * _noise(rows, explained, clients, items)
        positive, negative = told & (along > 0), told & (along < 0)
        up = _sum(positive.float(), rows.sender, clients)
        down = _sum(negative.float(), rows.sender, clients)
        flip = up > down
        if int(memory["negatives"]) == 1 and "popularity" in memory:
            known = memory["popularity"][rows.item]
            above = _sum(known * positive, rows.sender, clients) / up.clamp_min(1)
            below = _sum(known * negative, rows.sender, clients)
            flip = below / down.clamp_min(1) > above
        along = torch.where(flip[rows.sender], -along, along)
        lowest = torch.zeros(clients).scatter_reduce(
            0, rows.sender, along, "amin", include_self=True
        )
        score = (lowest - 1.0)[:, None].repeat(1, items)
        score[rows.sender, rows.item] = along
        chosen = torch.zeros(clients, items, dtype=torch.bool)
        chosen[rows.sender, rows.item] = told & (along > 0)
        return score, chosen, explained

    def guess(self, memory: State, prior: Prior) -> Guess:
        seen = memory["seen"].nonzero()[:, 0]
        return Guess(seen, memory["score"][seen], memory["chosen"][seen])


def principal(rows: Rows, clients: int, power: int) -> tuple[Tensor, Tensor]:
    """Each row's first principal component, (rows,), and its energy share by client.

    Power iteration from each client's longest row, all clients at once.
    """
    value, sender = rows.value, rows.sender
    energy = value.square().sum(1)
    longest = torch.zeros(clients).scatter_reduce(
        0, sender, energy, "amax", include_self=True
    )
    at = (energy == longest[sender]).nonzero()[:, 0].flip(0)  # of equals, the first
    start = torch.zeros(clients, value.shape[1])
    start[sender[at]] = value[at]
    axis = _unit(start)
    moving = torch.ones(clients, 1, dtype=torch.bool)  # a client stops by itself
    for _ in range(power):
        along = (value * axis[sender]).sum(1)
        axis_next = torch.zeros_like(axis).index_add_(0, sender, value * along[:, None])
        axis_next = torch.where(moving, _unit(axis_next), axis)
        moving = (axis_next - axis).abs().amax(1, keepdim=True) >= 1e-6
        axis = axis_next
        if not moving.any():
            break
    along = (value * axis[sender]).sum(1)
    whole = _sum(energy, sender, clients).clamp_min(1e-30)
    return along, _sum(along.square(), sender, clients) / whole


def _noise(rows: Rows, explained: Tensor, clients: int, items: int) -> Tensor:
    """Deviation along the axis of a row that is noise alone, (rows,).

    Zero where a client sent some rows only: those are the ones that it trained. The
    axis that explains most also follows the noise, by the factor that the largest
    singular value of a random matrix has.
    """
    value, sender = rows.value, rows.sender
    sent = _sum(torch.ones(len(sender)), sender, clients).clamp_min(1)
    width = value.shape[1]
    energy = _sum(value.square().sum(1), sender, clients)
    off_axis = energy * (1 - explained).clamp_min(0) / (sent * max(1, width - 1))
    deviation = off_axis.sqrt() * (1 + (width / sent).sqrt())
    return torch.where(sent == items, deviation, 0.0)[sender]


def _unit(x: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / length.clamp_min(1e-30)


def _sum(value: Tensor, sender: Tensor, clients: int) -> Tensor:
    return torch.zeros(clients).index_add_(0, sender, value)


def _nothing(clients: int, items: int) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.zeros(clients, items),
        torch.zeros(clients, items, dtype=torch.bool),
        torch.full((clients,), -1.0),
    )
