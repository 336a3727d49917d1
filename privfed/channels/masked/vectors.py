"""From uploads to the words that a client sends, and from their sum to numbers."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privfed.channels.layout import Layout
from privfed.channels.masked.masks import Words, word_type
from privfed.messages import Rows, Uploads

_PIECE = 2**23  # numbers of uploads laid out at once


def pieces(uploads: Uploads, length: int) -> Iterator[Uploads]:
    """The same uploads, so few at once that their vectors fit memory."""
    count, step = len(uploads.clients), max(1, _PIECE // length)
    for start in range(0, count, step):
        yield _part(uploads, start, min(start + step, count))


def _part(uploads: Uploads, start: int, stop: int) -> Uploads:
    """The uploads of clients ``start`` to ``stop``."""

    def rows(table: Rows) -> Rows:
        ends = torch.tensor([start, stop], device=table.sender.device)
        a, b = torch.searchsorted(table.sender, ends).tolist()
        return Rows(table.sender[a:b] - start, table.item[a:b], table.value[a:b])

    return replace(
        uploads,
        clients=uploads.clients[start:stop],
        rows={n: rows(table) for n, table in uploads.rows.items()},
        dense={n: value[start:stop] for n, value in uploads.dense.items()},
        weight=None if uploads.weight is None else uploads.weight[start:stop],
        users={n: value[start:stop] for n, value in uploads.users.items()},
        rest={n: value[start:stop] for n, value in uploads.rest.items()},
        packed={},
    )


@dataclass(frozen=True)
class Places:
    """Which words of a round's sum every client sends, and which come in rows.

    Rows of tables, where only touched ones are sent, then everybody's own of users.
    """

    layout: Layout
    common: NDArray[np.int64]
    starts: NDArray[np.int64]  # (rows,)
    widths: NDArray[np.int64]  # (rows,)
    tables: dict[str, slice]  # each table's rows

    @classmethod
    def of(cls, layout: Layout, touched: bool) -> "Places":
        common, starts, widths = [np.arange(0)], [np.arange(0)], [np.arange(0)]
        tables: dict[str, slice] = {}
        for s in layout.segments:
            if s.kind == "users" or (touched and s.kind == "table"):
                count, width = s.shape
                if s.kind == "table":
                    before = sum(len(one) for one in starts)
                    tables[s.name] = slice(before, before + count)
                starts.append(s.start + width * np.arange(count))
                widths.append(np.full(count, width))
            elif not (touched and s.kind == "senders"):
                common.append(np.arange(s.start, s.stop))
        return cls(
            layout,
            np.concatenate(common),
            np.concatenate(starts),
            np.concatenate(widths),
            tables,
        )

    @property
    def rows(self) -> int:
        return len(self.starts)

    @property
    def of_tables(self) -> int:
        """How many rows, the first ones, are rows of tables."""
        return max((one.stop for one in self.tables.values()), default=0)

    def touched(self, uploads: Uploads) -> NDArray[np.bool_]:
        """Which rows of tables each client sends, (clients, rows)."""
        member = np.zeros((len(uploads.clients), self.of_tables), bool)
        for name, place in self.tables.items():
            rows = uploads.rows[name]
            member[rows.sender.cpu().numpy(), place.start + rows.item.cpu().numpy()] = 1
        return member

    def owned(self) -> NDArray[np.bool_]:
        """Which rows of users are each client's own, (cohort, rows)."""
        clients = self.layout.terms
        tables = (self.rows - self.of_tables) // clients
        return np.tile(np.eye(clients, dtype=bool), tables)


def words_of(vectors: Tensor, bits: int) -> Words:
    """Integers as words; negative ones wrap."""
    return vectors.cpu().numpy().astype(word_type(bits))


def signed(words: Words, bits: int) -> NDArray[np.int64]:
    """Words modulo 2^bits as the integers nearest to 0."""
    unused = 64 - bits
    return (words.astype(np.uint64) << np.uint64(unused)).view(np.int64) >> unused
