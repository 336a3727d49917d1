"""Which clients of a group Krum trusts.

Blanchard et al., Machine learning with adversaries, NeurIPS 2017: a client's score is
the sum of its distances to its nearest neighbors; the lowest score is trusted most.
Ties go to the client that comes first.

Functions take ``distance``, (groups, room, room), of groups of ``counts`` clients,
(groups,), padded to a common room, and return which are picked, (groups, room) bool.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from privfed.channels.robust.groups import in_cache
from privfed.channels.robust.order import ascending

FAR = 1e300  # of an infinite distance; padding is farther still


@dataclass(frozen=True)
class Counted:
    """How many neighbors score a client, and how many clients are picked."""

    counts: Tensor  # (groups,) clients
    near: Tensor  # (groups,) neighbors
    keep: Tensor  # (groups,) picked


def best_at_once(distance: Tensor, of: Counted) -> Tensor:
    """The clients with the lowest scores, all scored once."""
    score = distance.new_empty(distance.shape[:2])
    for few, out, counts, near in in_cache(distance, score, of.counts, of.near):
        out.copy_(_first_sums(ascending(_others(few, counts), 2), near))
    score = torch.where(_real(distance, of.counts), score, torch.inf)
    order = score.argsort(dim=1, stable=True)
    rank = torch.empty_like(order)
    rank.scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    return rank < of.keep[:, None]


def best_one_by_one(distance: Tensor, of: Counted) -> Tensor:
    """The best client, then the best of those left, scored among themselves, ...

    El Mhamdi et al., The hidden vulnerability of distributed learning in Byzantium,
    ICML 2018. ``near`` neighbors score a client at first, one fewer after each pick.
    """
    left = _Left.of(distance, of)
    picked = torch.zeros_like(left.alive)
    each = torch.arange(len(distance), device=distance.device)
    for step in range(int(of.keep.max())):
        going = step < of.keep
        best = left.scores(of.near - step).argmin(1)
        picked[each, best] |= going
        left.remove(each[going], best[going])
    return picked


@dataclass
class _Left:
    """The clients not picked yet, and their scores.

    A client's neighbors are those alive among the ``end`` nearest in ``order``, fixed
    at the start. When one of them is picked, it leaves their sum; when another is, the
    farthest of them does. So what a pick costs does not grow with the pairs.
    """

    distance: Tensor  # (groups, room, room)
    order: Tensor  # (groups, room, room) the others, nearest first
    rank: Tensor  # (groups, room, room) by client: where it stands in each one's order
    alive: Tensor  # (groups, room) bool
    end: Tensor  # (groups, room)
    score: Tensor  # (groups, room)

    @classmethod
    def of(cls, distance: Tensor, of: Counted) -> "_Left":
        score = distance.new_empty(distance.shape[:2])
        others = torch.empty_like(distance)
        order = torch.empty_like(distance, dtype=torch.int64)
        rank = torch.empty_like(order)
        place = torch.arange(order.shape[2], device=order.device)
        blocks = (distance, others, order, rank, score, of.counts, of.near)
        for few, away, first, at, total, counts, near in in_cache(*blocks):
            away.copy_(_others(few, counts))
            first.copy_(_order(away))
            there = torch.empty_like(first).scatter_(2, first, place.expand_as(first))
            at.copy_(there.transpose(1, 2))
            total.copy_(_first_sums(away.gather(2, first), near))
        end = of.near[:, None].expand_as(score).clone()
        return cls(others, order, rank, _real(distance, of.counts), end, score)

    def scores(self, near: Tensor) -> Tensor:
        """Scores by ``near`` neighbors, (groups, room); infinite for the picked."""
        one = (near == 1).nonzero()[:, 0]
        there = torch.where(self.alive[one, None], self.distance[one], torch.inf)
        self.score[one] = there.amin(2)  # so that two that are one's other tie exactly
        self.score[near < 1] = 0.0
        return torch.where(self.alive, self.score, torch.inf)

    def remove(self, group: Tensor, client: Tensor) -> None:
        """Take one client out of each of some groups."""
        self.alive[group, client] = False
        away = self.distance[group, client]
        inside = self.rank[group, client] < self.end[group]
        self.score[group] -= torch.where(inside, away, 0.0)
        at, client = (self.alive[group] & ~inside).nonzero(as_tuple=True)
        self._shorten(group[at], client)

    def _shorten(self, row: Tensor, client: Tensor) -> None:
        """Drop the farthest neighbor of some clients."""
        while len(row):
            some = self.end[row, client] > 0
            row, client = row[some], client[some]
            self.end[row, client] -= 1
            last = self.order[row, client, self.end[row, client]]
            there = self.alive[row, last]
            away = self.distance[row, client, last]
            self.score[row, client] -= torch.where(there, away, 0.0)
            row, client = row[~there], client[~there]


def _real(distance: Tensor, counts: Tensor) -> Tensor:
    room = torch.arange(distance.shape[1], device=distance.device)
    return room < counts[:, None]


def _others(distance: Tensor, counts: Tensor) -> Tensor:
    """Distances to others; those to itself and to padding are infinite."""
    real = _real(distance, counts)
    pairs = real[:, :, None] & real[:, None]
    found = torch.where(pairs, distance.clamp_max(FAR), torch.inf)
    found.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    return found


def _first_sums(sorted_: Tensor, near: Tensor) -> Tensor:
    """The sum of the first ``near`` of each row, (groups, room)."""
    at = (near - 1).clamp_min(0)[:, None, None].expand(-1, sorted_.shape[1], 1)
    sums = sorted_.cumsum(2).gather(2, at)[:, :, 0]
    return torch.where(near[:, None] > 0, sums, 0.0)


def _order(distance: Tensor) -> Tensor:
    if distance.device.type == "cpu":  # many times faster there
        return torch.from_numpy(np.argsort(distance.numpy(), axis=2))
    return distance.argsort(2)
