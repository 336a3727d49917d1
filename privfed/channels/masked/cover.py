"""Which numbers of a vector a mask covers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from privfed.channels.masked.graph import Graph
from privfed.channels.masked.masks import Masks, Words

Where = slice | NDArray[np.int64]  # the words at these places, ascending
EVERYTHING = slice(None)


def length(where: Where, whole: int) -> int:
    """How many of ``whole`` words these are."""
    if isinstance(where, slice):
        return len(range(whole)[where])
    return len(where)


def add(words: Words, where: Where, key: bytes, masks: Masks, plus: bool) -> None:
    """Add a key's mask to some words, or take it off, in place."""
    mask = masks.mask(key, length(where, len(words)))
    apply = np.add if plus else np.subtract
    if isinstance(where, slice):
        apply(words[where], mask, out=words[where])
    else:
        words[where] = apply(words[where], mask)


class Cover(Protocol):
    """Where a round's masks lie, for all clients; public."""

    def sent(self, client: int) -> Where:
        """Which words of the sum a client sends, ascending."""

    def shared(self, client: int, at: int) -> Where:
        """Which words of the sum a client masks with its neighbor ``at``."""

    def own(self, client: int) -> Sequence[Where]:
        """Which of the words that it sends a client masks with each neighbor."""

    def bytes_down(self, client: int) -> int:
        """Bytes that tell a client what to mask with whom."""


@dataclass(frozen=True)
class Whole:
    """Every client sends and masks every word."""

    degree: int

    def sent(self, client: int) -> Where:
        return EVERYTHING

    def shared(self, client: int, at: int) -> Where:
        return EVERYTHING

    def own(self, client: int) -> Sequence[Where]:
        return [EVERYTHING] * self.degree

    def bytes_down(self, client: int) -> int:
        return 0


@dataclass(frozen=True)
class Touched:
    """Clients send some rows only; a pair's mask covers the rows that both send.

    ``common`` are the words of the sum that every client sends. Row r is ``widths[r]``
    words from ``starts[r]`` on, and ``member`` says who sends it.
    """

    graph: Graph
    common: NDArray[np.int64]
    starts: NDArray[np.int64]  # (rows,)
    widths: NDArray[np.int64]  # (rows,)
    member: NDArray[np.bool_]  # (clients, rows)

    def sent(self, client: int) -> Where:
        return self._words(self.member[client])

    def shared(self, client: int, at: int) -> Where:
        neighbor = self.graph.neighbors[client, at]
        both = self.member[client] & self.member[neighbor]
        return self._words(both) if both.any() else self._only_common

    def own(self, client: int) -> Sequence[Where]:
        mine = self.member[client].nonzero()[0]
        both = self.member[self.graph.neighbors[client]][:, mine]
        if not both.any() and isinstance(self._only_common, slice):
            return [self._only_common] * len(both)
        sent, common = self._places(mine), len(self.common)
        order = np.argsort(sent, kind="stable")
        words = np.ones((len(both), len(sent)), bool)
        words[:, common:] = np.repeat(both, self.widths[mine], axis=1)
        return [one.nonzero()[0] for one in words[:, order]]

    def bytes_down(self, client: int) -> int:
        """One bit for each row that it sends and neighbor."""
        return -(-int(self.member[client].sum()) * self.graph.degree // 8)

    @cached_property
    def _only_common(self) -> Where:
        """The common words; where they come first, in a form that takes no memory."""
        first = np.array_equal(self.common, np.arange(len(self.common)))
        return slice(0, len(self.common)) if first else self.common

    def _words(self, rows: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.sort(self._places(rows.nonzero()[0]))

    def _places(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The common words, then those of these rows."""
        widths = self.widths[rows]
        before = widths.cumsum() - widths
        within = np.arange(widths.sum()) - np.repeat(before, widths)
        words = np.repeat(self.starts[rows], widths) + within
        return np.concatenate([self.common, words])


def accompanied(
    graph: Graph, member: NDArray[np.bool_], fewest: int
) -> NDArray[np.bool_]:
    """The most that clients may send so that at least ``fewest`` send a row together.

    Each client sends a row only with ``fewest`` - 1 neighbors that send it too.
    """
    while True:
        kept: NDArray[np.bool_] = member & (company(graph, member) >= fewest - 1)
        if np.array_equal(kept, member):
            return kept
        member = kept


def company(graph: Graph, member: NDArray[np.bool_]) -> NDArray[np.int32]:
    """How many of a client's neighbors send each row too, (clients, rows)."""
    count = np.zeros(member.shape, np.int32)
    for j in range(graph.degree):
        count += member[graph.neighbors[:, j]]
    return count
