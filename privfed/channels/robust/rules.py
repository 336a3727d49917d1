"""The rules, each with its settings.

``malicious`` is how many forged uploads a rule is told to stand: below 1 a share of the
clients that vote, rounded down as published code has it (5 % of 19 senders is nobody);
otherwise a number of clients.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from privfed.channels.robust import order
from privfed.channels.robust.channel import Robust, vote
from privfed.channels.robust.norms import bounded
from privfed.channels.robust.selection import (
    Counted,
    best_at_once,
    best_one_by_one,
)
from privfed.channels.robust.vote import MEAN, Rule, Sums
from privfed.checks import positive
from privfed.errors import SettingsError
from privfed.messages import Uploads

_SORTS = "memory for a round's uploads, three times; sorting them at the server"
_PAIRS = "memory for a round's uploads, three times; every pair of clients is compared"


def assumed(malicious: float, clients: int, most: int) -> int:
    """How many of some clients are taken to lie, ``most`` at most."""
    told = int(malicious * clients + 1e-9) if malicious < 1 else int(malicious)
    return max(0, min(told, most))


@dataclass(frozen=True)
class Median(Robust):
    """The median of every coordinate.

    Stands anything short of half of the clients that vote. With ``per="upload"`` a row
    that most clients did not send is zero for most, and its median is zero: items
    outside the head of the catalog are not learned at all. Of two senders the median is
    the mean, of one sender its row.
    """

    cost = _SORTS
    paper = "Yin et al., ICML 2018; item by item: Zhang et al. (PIECK), ICDE 2024"

    def refuse(self, clients: int) -> None:
        """Any number will do."""

    def combined(self, uploads: Uploads, items: int) -> Sums:
        rule = Rule(lambda x, _: order.median(x))
        return vote(uploads, items, self.per, rule)


@dataclass(frozen=True)
class TrimmedMean(Robust):
    """The mean of every coordinate without its outliers.

    ``drop="ends"`` drops the ``malicious`` largest and as many smallest numbers (Yin et
    al.); ``drop="farthest"`` the ``malicious`` numbers farthest from the median (PIECK,
    Spattack). Where an item has too few senders for that, fewer are dropped, at most
    so many that one is left.
    """

    malicious: float = 0.05
    drop: Literal["ends", "farthest"] = "ends"

    cost = _SORTS
    paper = "Yin et al., ICML 2018; drop=farthest: Zhang et al. (PIECK), ICDE 2024"

    def __post_init__(self) -> None:
        _check_malicious(self.malicious)

    def refuse(self, clients: int) -> None:
        _refuse(self.malicious, clients, (clients - 1) // 2, "2 f + 1")

    def combined(self, uploads: Uploads, items: int) -> Sums:
        by = order.without_ends if self.drop == "ends" else order.near_median

        def combine(x: Tensor, voters: int) -> Tensor:
            return by(x, assumed(self.malicious, voters, (voters - 1) // 2))

        return vote(uploads, items, self.per, Rule(combine))


@dataclass(frozen=True)
class Scored(Robust):
    """Rules that trust the clients with the nearest neighbors.

    ``neighbors`` is how many of the n - 1 others score one of n clients, f of which are
    taken to be malicious: ``n-f-2`` as in the papers and in UA-FedRec's code, ``n-f``
    as in PIECK's, ``n-f-1`` as in ByzFL's. ``distance`` is ``squared`` in the papers
    and in ByzFL, ``plain`` in PIECK's and UA-FedRec's code. Where an item has too few
    senders for ``malicious``, f is as many as they stand; one or two are averaged.
    """

    malicious: float = 0.05
    neighbors: Literal["n-f-2", "n-f-1", "n-f"] = "n-f-2"
    distance: Literal["squared", "plain"] = "squared"

    cost = _PAIRS
    per_liar: ClassVar[int]  # n clients must be at least this times f, and 3

    def __post_init__(self) -> None:
        _check_malicious(self.malicious)

    def refuse(self, clients: int) -> None:
        most = (clients - 3) // self.per_liar
        _refuse(self.malicious, clients, most, f"{self.per_liar} f + 3")

    def _liars(self, clients: int) -> int:
        """f among so many clients."""
        return assumed(self.malicious, clients, (clients - 3) // self.per_liar)

    def _counted(self, counts: Tensor, kept_per_liar: int) -> Counted:
        """All but so many clients for each liar are picked."""
        sizes, back = torch.unique(counts, return_inverse=True)
        each = [self._liars(n) for n in sizes.tolist()]
        liars = torch.tensor(each, device=counts.device)[back]
        less = ("n-f", "n-f-1", "n-f-2").index(self.neighbors)
        near = (counts - liars - less).clamp_min(1).minimum(counts - 1)
        return Counted(counts, near, counts - kept_per_liar * liars)

    def _measured(self, squared: Tensor) -> Tensor:
        return squared.sqrt() if self.distance == "plain" else squared


@dataclass(frozen=True)
class Krum(Scored):
    """The one upload, or with ``per="item"`` the one row, nearest to its neighbors.

    It stands for everybody: its row is multiplied by the number of clients that voted.
    """

    per_liar = 2
    paper = "Blanchard et al., NeurIPS 2017"

    def combined(self, uploads: Uploads, items: int) -> Sums:
        def pick(squared: Tensor, counts: Tensor) -> Tensor:
            of = self._counted(counts, 0)
            one = torch.where(counts < 3, counts, 1)
            return best_at_once(self._measured(squared), Counted(counts, of.near, one))

        return vote(uploads, items, self.per, Rule(MEAN.combine, pick))


@dataclass(frozen=True)
class MultiKrum(Scored):
    """The mean of the uploads, or rows, that Krum trusts most.

    ``keep="n-f"`` takes all but f of n (ByzFL), ``n-2f`` all but 2 f (PIECK). The paper
    scores all clients once (``scored="once"``); PIECK takes the best one, then the best
    of those left, scored among themselves (``scored="each"``).
    """

    keep: Literal["n-f", "n-2f"] = "n-f"
    scored: Literal["once", "each"] = "once"

    per_liar = 2
    paper = "Blanchard et al., NeurIPS 2017"

    def combined(self, uploads: Uploads, items: int) -> Sums:
        best = best_at_once if self.scored == "once" else best_one_by_one
        kept_per_liar = 1 if self.keep == "n-f" else 2

        def pick(squared: Tensor, counts: Tensor) -> Tensor:
            return best(self._measured(squared), self._counted(counts, kept_per_liar))

        return vote(uploads, items, self.per, Rule(MEAN.combine, pick))


@dataclass(frozen=True)
class Bulyan(Scored):
    """Krum's best n - 2 f, one by one; then the mean of those nearest their median.

    Of every coordinate of the n - 2 f uploads, or rows, the 2 f numbers farthest from
    the median are dropped.
    """

    per_liar = 4
    paper = "El Mhamdi et al., ICML 2018"

    def combined(self, uploads: Uploads, items: int) -> Sums:
        def pick(squared: Tensor, counts: Tensor) -> Tensor:
            return best_one_by_one(self._measured(squared), self._counted(counts, 2))

        def combine(x: Tensor, voters: int) -> Tensor:
            return order.near_median(x, 2 * self._liars(voters))

        return vote(uploads, items, self.per, Rule(combine, pick))


@dataclass(frozen=True)
class NormBound(Robust):
    """The sum of all uploads, each cut to a norm.

    ``per="upload"`` bounds a client's whole upload, all tensors together; ``item`` each
    row by itself, and what is no table of items as one vector. ``bound`` is in units of
    the upload (the learning rate times the gradient); ``median`` takes the median norm
    of the round's uploads, or rows. What is not finite counts as nothing. A factor by
    which a table shrank has no norm: it is kept between 0 and 1.
    """

    bound: float | Literal["median"] = "median"

    cost = "memory for a round's uploads, three times"
    paper = "Sun et al., Can you really backdoor federated learning?, 2019"

    def __post_init__(self) -> None:
        if self.bound != "median":
            positive(self, "bound")

    def refuse(self, clients: int) -> None:
        """Any number will do."""

    def combined(self, uploads: Uploads, items: int) -> Sums:
        cut = bounded(uploads, self.per, self.bound)
        return vote(cut, items, "item", MEAN)  # times the senders: their sum


def _check_malicious(malicious: float) -> None:
    """Raise ValueError for what is neither a share below one half nor a number."""
    if 0 <= malicious < 0.5 or (malicious >= 1 and float(malicious).is_integer()):
        return
    raise ValueError(
        "malicious must be a share from 0 to below 0.5, or a whole number of clients, "
        f"got {malicious:g}"
    )


def _refuse(malicious: float, clients: int, most: int, needed: str) -> None:
    told = assumed(malicious, clients, clients)
    if told > most:
        raise SettingsError(
            f"this rule needs {needed} clients a round to stand f malicious ones, and "
            f"was told to stand {told} of {clients}; lower malicious, take more "
            "clients a round, or per=item"
        )
