"""Uploads in the clear, combined by a rule that a few forged ones cannot bend far."""

import time
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from privfed.accounting.guarantee import Guarantee, not_private
from privfed.channels.plain import seen
from privfed.channels.robust.groups import in_client_order
from privfed.channels.robust.vote import Rule, Sums, by_item, by_upload
from privfed.data.world import Shape
from privfed.interfaces import Channel, Delivered, Opening, Rejected
from privfed.messages import Rows, Spent, Total, Uploads, join
from privfed.views import TotalView, UploadsView

Per = Literal["item", "upload"]


@dataclass
class Collected:
    """A round's uploads so far."""

    opening: Opening
    uploads: list[Uploads] = field(default_factory=list)
    bytes_up: int = 0


@dataclass(frozen=True)
class Robust(Channel):
    """Collect a round's uploads; the total is what a rule makes of them.

    A rule gives an estimate of the mean; the total is that times the number of clients
    (of the item's senders with ``per="item"``), so that a method learns from it as from
    a sum. Every client counts alike: where clients send FedAvg weights, which are their
    own claims, all get the median of those. A client's own row of a table of users is
    passed on as it is. Memory: three times the round's uploads, and some 200 MB.
    """

    per: Per = "item"

    hides = "nothing"
    does_not_hide = "any upload: the server reads every one"
    trust = "the server, with everything; of the clients, all but those assumed forged"
    shows = (UploadsView, TotalView)
    sums = False

    @abstractmethod
    def refuse(self, clients: int) -> None:
        """Raise SettingsError where so few clients cannot be combined."""

    @abstractmethod
    def combined(self, uploads: Uploads, items: int) -> Sums:
        """What uploads in client order come to."""

    def open(self, opening: Opening) -> Collected:
        if self.per == "upload":
            self.refuse(len(opening.clients))
        return Collected(opening)

    def send(
        self, opened: Collected, uploads: Uploads
    ) -> tuple[Collected, UploadsView]:
        view = seen(uploads, opened.opening)
        opened.uploads.append(uploads)
        opened.bytes_up += int(view.bytes_up.sum())
        return opened, view

    def close(self, opened: Collected) -> Delivered:
        start = time.thread_time()
        total, rejected = self._combined(opened)
        number = opened.opening.number
        view = TotalView(round=number, clients=total.clients, total=total)
        seconds = time.thread_time() - start
        spent = Spent(bytes_up=opened.bytes_up, server_seconds=seconds)
        return Delivered(total, [view], spent, rejected)

    def _combined(self, opened: Collected) -> tuple[Total, Rejected | None]:
        if not opened.uploads:
            return Total({}, {}, {}, 0.0, 0), None
        uploads = in_client_order(join(opened.uploads))
        found = self.combined(uploads, opened.opening.shape.items)
        rejected = None
        if found.votes:
            votes = found.votes
            rejected = Rejected(uploads.clients, votes.cast, votes.dropped)
        return _total(found, uploads, opened.opening.shape), rejected

    def guarantee(self) -> Guarantee:
        return not_private(
            trust="the server reads every upload",
            covers="how far a few clients can move the total, not what anybody learns",
            caveats=("an item most of whose senders lie together is theirs",),
        )


def vote(uploads: Uploads, items: int, per: Per, rule: Rule) -> Sums:
    """Combine uploads by a rule, whole or item by item."""
    return (by_item if per == "item" else by_upload)(uploads, items, rule)


def _total(found: Sums, uploads: Uploads, shape: Shape) -> Total:
    """What a rule found, as a sum over clients that all count alike."""
    weight = _weight(uploads)
    return Total(
        {name: value * weight for name, value in found.tables.items()},
        {name: _senders(t, shape.items) for name, t in uploads.rows.items()},
        {name: value * weight for name, value in found.dense.items()},
        len(uploads.clients) * weight,
        len(uploads.clients),
        _users(uploads, shape.clients),
        {name: value * weight for name, value in found.rest.items()},
    )


def _weight(uploads: Uploads) -> float:
    """What every client counts."""
    return 1.0 if uploads.weight is None else float(uploads.weight.nanmedian())


def _senders(rows: Rows, items: int) -> Tensor:
    return torch.bincount(rows.item, minlength=items)


def _users(uploads: Uploads, clients: int) -> dict[str, Tensor]:
    weight = uploads.weight
    found = {}
    for name, value in uploads.users.items():
        table = value.new_zeros(clients, value.shape[1])
        table[uploads.clients] = value if weight is None else value * weight[:, None]
        found[name] = table
    return found
