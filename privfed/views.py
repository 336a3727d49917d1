"""What each party can see. An attack is given one of these and nothing else.

A server view that shows more is a subclass of each view that shows less, so
"sees at least" is ``isinstance``. Ground truth is in none of them. A round shows
its uploads shard by shard and its total once, at the end.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from privfed.messages import Total, Uploads, reordered


@dataclass(frozen=True, kw_only=True)
class View:
    """Something that one party saw in one round."""

    round: int


@dataclass(frozen=True, kw_only=True)
class ModelView(View):
    """Any client of the round: the model that it was sent."""

    model: Any


@dataclass(frozen=True, kw_only=True)
class ServerView(View):
    """The server: all that it holds when a round begins, its own tensors too."""

    model: Any


@dataclass(frozen=True, kw_only=True)
class RoundView(View):
    """The server, when all that it relays is encrypted: who sent how much."""

    clients: Tensor  # (clients,)
    bytes_up: Tensor  # (clients,)


@dataclass(frozen=True, kw_only=True)
class ItemsView(RoundView):
    """And which items each client sent, but no value."""

    items: Mapping[str, tuple[Tensor, Tensor]]  # table -> sender, item


@dataclass(frozen=True, kw_only=True)
class UploadsView(ItemsView):
    """The server with no cryptography: every upload as it was sent."""

    uploads: Uploads


@dataclass(frozen=True, kw_only=True)
class TotalView(View):
    """The sum over the cohort, but no client's part in it."""

    clients: int
    total: Total


@dataclass(frozen=True, kw_only=True)
class ItemsAndTotalView(TotalView):
    """The sum, and which items each client has a part in."""

    senders: Tensor  # (clients,)
    items: Mapping[str, tuple[Tensor, Tensor]]  # table -> position in senders, item


@dataclass(frozen=True, kw_only=True)
class UnlinkedView(View):
    """The server, where uploads come without a name: pseudonyms of one round."""

    uploads: Uploads  # of ascending pseudonyms, without rows of a table of users

    @classmethod
    def of(cls, view: UploadsView, pseudonym: Tensor) -> "UnlinkedView":
        """The same uploads under each client's pseudonym, in their order."""
        known = view.uploads
        order = pseudonym[known.clients].argsort()
        sent = reordered(replace(known, users={}), order)
        named = replace(sent, clients=pseudonym[sent.clients])
        return cls(round=view.round, uploads=named)
