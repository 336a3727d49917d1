"""Spattack: Byzantine clients where each item is averaged over few senders.

Zhang et al., Rethinking Byzantine robustness in federated recommendation from sparse
aggregation perspective, AAAI 2025. An item's row is combined over the clients that sent
it; of an item that few send, a few malicious clients are the majority.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from privfed.adversary import Knowledge
from privfed.checks import not_negative, positive
from privfed.interfaces import State
from privfed.messages import Rows, Uploads
from privfed.poisoners.crafting.rows import Crafted, replaced, scale_of
from privfed.poisoners.untargeted.honest import Sums, added, sums, weights
from privfed.poisoners.untargeted.made_up import Degrader
from privfed.poisoners.untargeted.omniscient import Omniscient
from privfed.poisoning import Plot, Sortie


def everywhere(sortie: Sortie, plot: Plot) -> Tensor:
    """The whole catalog for each client, (clients, items)."""
    every = torch.arange(plot.items, device=sortie.clients.device)
    return every.expand(len(sortie.clients), -1)


def by_popularity(sortie: Sortie, plot: Plot, size: int) -> Tensor:
    """So many items of each client, (clients, size), the same in every round.

    Drawn one after the other without replacement, the chance of an item in proportion
    to its interactions; items without any are left out.
    """
    assert plot.popularity is not None
    popularity = plot.popularity.double()
    some = popularity.nonzero()[:, 0]
    drawn = plot.stream.of("rows").uniform(sortie.clients[:, None], some[None])
    # The first arrivals of Poisson processes of such rates (Efraimidis and Spirakis).
    arrival = -torch.log1p(-drawn) / popularity[some]
    return some[arrival.argsort(dim=1, stable=True)[:, :size]]


@dataclass(frozen=True)
class Canceling(Omniscient):
    """Spattack-O: what cancels the sum of all honest uploads of the round."""

    paper: ClassVar[str] = "Zhang et al., AAAI 2025"

    @abstractmethod
    def items(self, honest: Uploads, sortie: Sortie, plot: Plot) -> Tensor:
        """The items of each malicious client, (clients, rows)."""

    def answer(self, honest: Uploads, sortie: Sortie, plot: Plot) -> Uploads:
        total, own = sums(honest, plot.items), weights(sortie.uploads)
        item = self.items(honest, sortie, plot)
        rows = {
            name: _shared(total, name, item, own, plot.items) for name in total.items
        }
        dense = {n: value / -own.sum() for n, value in total.dense.items()}
        return replaced(sortie.uploads, rows, dense, plot.items)


def _shared(total: Sums, name: str, item: Tensor, own: Tensor, items: int) -> Rows:
    """Minus the honest sum of a table, split over the clients that hold each item."""
    whole = total.rows[name].new_zeros(items, total.rows[name].shape[1])
    whole[total.items[name]] = total.rows[name]
    zeros = whole[:1].expand(item.shape[-1], -1)
    held = Crafted(item, zeros).rows(len(item), items)
    among = added(held, own[held.sender, None], items)
    return Rows(held.sender, held.item, -(whole / among.clamp_min(1e-30))[held.item])


@dataclass(frozen=True)
class SpattackOD(Canceling):
    """Spattack-O-D: cancel the sum of all honest uploads, every row of the catalog."""

    def items(self, honest: Uploads, sortie: Sortie, plot: Plot) -> Tensor:
        return everywhere(sortie, plot)


@dataclass(frozen=True)
class SpattackOS(Canceling):
    """Spattack-O-S: the same on popular rows, as many as honest clients send at most.

    Each client's rows are drawn once, by popularity. ``rows`` sets another number.
    """

    rows: int = 0

    knows: ClassVar[Knowledge] = Knowledge(uploads=True, popularity=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative(self, "rows")

    def items(self, honest: Uploads, sortie: Sortie, plot: Plot) -> Tensor:
        return by_popularity(sortie, plot, self.rows or most_rows(honest))


@dataclass(frozen=True)
class Blind(Degrader):
    """Spattack-L: a fixed table of normal numbers, the same on every client and round.

    ``deviation`` is of a gradient: times the learning rate where the method tells one.
    """

    deviation: float = 1.0

    paper: ClassVar[str] = "Zhang et al., AAAI 2025"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "deviation")

    @abstractmethod
    def items(self, sortie: Sortie, plot: Plot) -> Tensor:
        """The items of each malicious client, (clients, rows)."""

    def forge(self, memory: State, sortie: Sortie, plot: Plot) -> tuple[State, Uploads]:
        sent, item = sortie.uploads, self.items(sortie, plot)
        rows: Mapping[str, Crafted] = {
            name: Crafted(item, self._table(name, table, sent, plot)[item])
            for name, table in sent.rows.items()
        }
        return memory, replaced(sent, rows, {}, plot.items)

    def _table(self, name: str, like: Rows, sent: Uploads, plot: Plot) -> Tensor:
        """The deltas of every row, (items, width)."""
        draws = plot.stream.of(f"table {name}").generator()
        size = plot.items, like.value.shape[1]
        gradient = torch.randn(size, generator=draws, device="cpu") * self.deviation
        return gradient.to(like.value) * -scale_of(sent, name)


@dataclass(frozen=True)
class SpattackLD(Blind):
    """Spattack-L-D: a fixed table of normal numbers, every row of the catalog.

    The same on every client and in every round; ``deviation`` is of a gradient, times
    the learning rate where the method tells one.
    """

    trains: ClassVar[bool] = False

    def items(self, sortie: Sortie, plot: Plot) -> Tensor:
        return everywhere(sortie, plot)


@dataclass(frozen=True)
class SpattackLS(Blind):
    """Spattack-L-S: the same on ``rows`` popular rows of each client, drawn once.

    0: as many as its clients' ordinary uploads have at most.
    """

    rows: int = 0

    knows: ClassVar[Knowledge] = Knowledge(popularity=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative(self, "rows")

    def items(self, sortie: Sortie, plot: Plot) -> Tensor:
        return by_popularity(sortie, plot, self.rows or most_rows(sortie.uploads))


def most_rows(uploads: Uploads) -> int:
    """The most rows of one table that one client sends."""
    found = [torch.bincount(rows.sender) for rows in uploads.rows.values()]
    return max((int(one.max()) for one in found if len(one)), default=0)
