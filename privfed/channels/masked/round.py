"""One round's uploads on their way through the protocol."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privfed.channels.layout import Layout
from privfed.channels.masked.cover import (
    Cover,
    Touched,
    Whole,
    accompanied,
    company,
    length,
)
from privfed.channels.masked.graph import Graph
from privfed.channels.masked.masks import Words
from privfed.channels.masked.packing import packed_size
from privfed.channels.masked.protocol import Protocol
from privfed.channels.masked.vectors import Places, pieces, signed, words_of
from privfed.channels.masked.wire import PUBLIC_BYTES, SEALED_BYTES, SHARE_BYTES, Rules
from privfed.interfaces import Opening
from privfed.messages import ID_BYTES, Total, Uploads


@dataclass(frozen=True)
class Parties:
    """Who is in a round, who is whose neighbor, and who falls silent after stage 2."""

    clients: NDArray[np.int64]  # ids, ascending: a position is a place in here
    graph: Graph
    rules: Rules
    silent: NDArray[np.bool_]  # (clients,)

    @classmethod
    def of(
        cls, opening: Opening, degree: int, rules: Rules, dropout: float
    ) -> "Parties":
        """Ring and silence are drawn by client; the nearest number fall silent."""
        clients = opening.clients.cpu().sort().values
        ring, luck = (
            opening.stream.of(what).bits(clients, torch.zeros_like(clients)).argsort()
            for what in ("ring", "dropout")
        )
        silent = np.zeros(len(clients), bool)
        silent[luck[: round(dropout * len(clients))].numpy()] = True
        return cls(clients.numpy(), Graph.ring(ring.numpy(), degree), rules, silent)


@dataclass
class Round:
    """A round from its first upload on: keys are agreed, shares are out.

    Without ``touched`` rows every client sends whole tables. With them, vectors wait
    until all clients have told the ids of their rows.
    """

    parties: Parties
    layout: Layout
    places: Places
    protocol: Protocol
    member: NDArray[np.bool_] = field(repr=False)  # (cohort, rows) told so far
    cover: Cover
    waiting: dict[int, Words] = field(default_factory=dict, repr=False)

    @classmethod
    def begin(cls, parties: Parties, layout: Layout, touched: bool) -> "Round":
        places = Places.of(layout, touched)
        protocol = Protocol.begin(parties.graph, parties.rules, layout.length)
        nothing = np.zeros((layout.terms, places.of_tables), bool)
        member = np.concatenate([nothing, places.owned()], axis=1)
        cover = _cover(parties.graph, places, member)
        return cls(parties, layout, places, protocol, member, cover)

    def send(self, uploads: Uploads) -> None:
        """Stage 3 for these clients; those that fall silent send nothing."""
        for client, words in self._vectors(uploads):
            self.protocol.send(client, words[self.cover.sent(client)], self.cover)

    def tell(self, uploads: Uploads) -> None:
        """Say which rows these clients touched; keep what they will send."""
        ids = sum(len(uploads.rows[name].item) for name in self.places.tables)
        self.protocol.cost("ids").bytes_up += ID_BYTES * ids
        at = self.layout.positions(uploads.clients).cpu().numpy()
        self.member[at, : self.places.of_tables] = self.places.touched(uploads)
        told = _cover(self.parties.graph, self.places, self.member)
        for client, words in self._vectors(uploads):
            self.waiting[client] = words[told.sent(client)]

    def send_waiting(self, fewest: int) -> None:
        """Stage 3 for all whose vectors wait, without rows that too few send."""
        told = _cover(self.parties.graph, self.places, self.member)
        tables = self.places.of_tables
        kept = accompanied(self.parties.graph, self.member[:, :tables], fewest)
        self.member = np.concatenate([kept, self.member[:, tables:]], axis=1)
        self.cover = _cover(self.parties.graph, self.places, self.member)
        for client, words in self.waiting.items():
            here = _found(told.sent(client), self.cover.sent(client))
            self.protocol.send(client, words[here], self.cover)
        self.waiting = {}

    def _vectors(self, uploads: Uploads) -> Iterator[tuple[int, Words]]:
        """Whole vectors, by position, of the clients that do not fall silent."""
        cost, bits = self.protocol.cost("masked input"), self._bits
        for piece in pieces(uploads, self.layout.length):
            with cost.of_clients():
                words = words_of(self.layout.pack(piece), bits)
            at = self.layout.positions(piece.clients).tolist()
            for client, vector in zip(at, words, strict=True):
                if not self.parties.silent[client]:
                    yield client, vector

    def total(self) -> Total:
        """Stage 4, and the sum as numbers."""
        words = self.protocol.finish(self.cover)
        with self.protocol.cost("unmasking").of_server():
            sums = signed(words, self._bits)
            self._count(sums)
            there = torch.from_numpy(sums).to(self.layout.clients.device)
            return self.layout.unpack(there, int(self.delivered.sum()))

    def _count(self, sums: NDArray[np.int64]) -> None:
        """Write how many sent each row, where ids were told in the clear."""
        counts = self.senders.sum(0)
        for s in self.layout.segments:
            if s.kind == "senders" and s.name in self.places.tables:
                told = counts[self.places.tables[s.name]] / s.encoding.step
                sums[s.start : s.stop] = told.astype(np.int64)

    def bytes_up(self, uploads: Uploads) -> Tensor:
        """All that each client sends in a round of whole tables, (clients,)."""
        at = self.layout.positions(uploads.clients)
        whole = self.places.layout.length
        silent = torch.from_numpy(self.parties.silent).to(at.device)[at]
        sent = [
            packed_size(length(self.cover.sent(client), whole), self._bits)
            for client in at.tolist()
        ]
        later = torch.tensor(sent, device=at.device) + self._degree * SHARE_BYTES
        return self._first + torch.where(silent, 0, later)

    def bytes_told(self, uploads: Uploads) -> Tensor:
        """What each client has sent once its ids are told, (clients,)."""
        sent = torch.full_like(uploads.clients, self._first)
        for name in self.places.tables:
            sent += ID_BYTES * torch.bincount(
                uploads.rows[name].sender, minlength=len(sent)
            )
        return sent

    @property
    def _first(self) -> int:
        """Bytes that each client sends in stages 1 and 2."""
        return PUBLIC_BYTES + self._degree * SEALED_BYTES

    @property
    def _degree(self) -> int:
        return self.parties.graph.degree

    @property
    def _bits(self) -> int:
        return self.parties.rules.bits

    @property
    def survivors(self) -> Tensor:
        """Ids of the clients in the sum, ascending."""
        return self.layout.clients[torch.from_numpy(self.delivered)]

    def items(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Which survivors, by place among them, have a part in which items."""
        rows = self.member[self.delivered]
        return {
            name: _places(rows[:, place]) for name, place in self.places.tables.items()
        }

    @property
    def delivered(self) -> NDArray[np.bool_]:
        """Who is in the sum, (cohort,)."""
        return self.protocol.server.delivered

    @property
    def senders(self) -> NDArray[np.bool_]:
        """Who has a part in which row of the sum, (cohort, rows)."""
        return self.member & self.delivered[:, None]

    @property
    def bare(self) -> int:
        """Rows in the sum that a client sent and none of its neighbors."""
        rows = self.senders[:, : self.places.of_tables]
        return int((rows & (company(self.parties.graph, rows) == 0)).sum())


def _cover(graph: Graph, places: Places, member: NDArray[np.bool_]) -> Cover:
    if not places.rows:
        return Whole(graph.degree)
    return Touched(graph, places.common, places.starts, places.widths, member)


def _found(
    words: slice | NDArray[np.int64], some: slice | NDArray[np.int64]
) -> NDArray[np.bool_] | slice:
    """Which of these words are among some of them."""
    if isinstance(words, slice) or isinstance(some, slice):
        return slice(None)
    return np.isin(words, some, assume_unique=True)


def _places(marks: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    """Where a matrix is true: its rows, its columns."""
    row, column = marks.nonzero()
    return torch.from_numpy(row), torch.from_numpy(column)
