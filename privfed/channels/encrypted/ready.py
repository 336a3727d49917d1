"""A round of encrypted aggregation: devices, server and key holder at work."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.accounting.guarantee import Guarantee
from privfed.channels.encrypted.coding import Integers
from privfed.channels.encrypted.device import Job
from privfed.channels.encrypted.envelope import size_of
from privfed.channels.encrypted.keys import KeyHolder
from privfed.channels.encrypted.parameters import Notice
from privfed.channels.encrypted.pool import Pool
from privfed.channels.encrypted.server import Server
from privfed.channels.encrypted.terms import Terms
from privfed.channels.layout import Layout, layout_of
from privfed.interfaces import Channel, Delivered, Opening
from privfed.messages import Spent, Total, Uploads
from privfed.views import RoundView, TotalView


@dataclass
class Running:
    """One round so far."""

    opening: Opening
    chosen: Tensor  # ids of the clients that are encrypted, ascending
    layout: Layout | None = None
    server: Server | None = None
    rest: Tensor | None = None  # (length,) what sampling left unencrypted
    clients: int = 0
    encrypted: int = 0
    bytes_up: int = 0
    preparing: float = 0.0  # seconds of all clients
    encrypting: float = 0.0  # seconds of those encrypted
    adding: float = 0.0


@dataclass(frozen=True)
class Ready(Channel):
    """The channel during a run. Server and key holder share nothing but the notice."""

    terms: Terms
    notice: Notice
    holder: KeyHolder
    pool: Pool
    promise: Guarantee

    shows = (RoundView, TotalView)

    def guarantee(self) -> Guarantee:
        return self.promise

    def open(self, opening: Opening) -> Running:
        """Begin a round; raises SettingsError where it has too few clients."""
        self.terms.refuse_few(len(opening.clients))
        return Running(opening, _chosen(opening, self.terms.sample))

    def send(self, opened: Running, uploads: Uploads) -> tuple[Running, RoundView]:
        start = time.thread_time()
        layout = self._layout(opened, uploads)
        vectors = layout.pack(uploads)
        real = torch.isin(uploads.clients, opened.chosen)
        opened.rest = _added(opened.rest, vectors[~real])
        jobs = self._jobs(opened, layout, uploads.clients[real], vectors[real])
        opened.preparing += time.thread_time() - start
        assert opened.server is not None
        for envelope, seconds in self.pool.seal(jobs):
            opened.encrypting += seconds
            start = time.thread_time()
            opened.server.receive(envelope)
            opened.adding += time.thread_time() - start
            opened.encrypted += 1
        return opened, self._seen(opened, layout, uploads)

    def close(self, opened: Running) -> Delivered:
        number, layout, server = opened.opening.number, opened.layout, opened.server
        if layout is None or server is None:
            return Delivered(Total({}, {}, {}, 0.0, 0), [], Spent())
        start = time.thread_time()
        message = server.sum()
        opened.adding += time.thread_time() - start
        start = time.thread_time()
        numbers, _ = self.holder.read(message, number, layout.length)
        sums = torch.from_numpy(numbers).to(layout.clients.device)
        if opened.rest is not None:
            sums = sums + opened.rest
        noise = self.notice.parameters.noise
        total = layout.unpack(sums, opened.clients, noise)
        spent = self._spent(opened, layout, message, time.thread_time() - start)
        view = TotalView(round=number, clients=opened.clients, total=total)
        return Delivered(total, [view], spent)

    def _layout(self, opened: Running, uploads: Uploads) -> Layout:
        """The round's layout, made when uploads first show their form."""
        if opened.layout is None:
            opening, capacity = opened.opening, self.notice.parameters.capacity
            opened.layout = layout_of(uploads, opening, self.terms.bounds, capacity)
            opened.server = Server(
                self.notice,
                opening.number,
                opened.layout.length,
                opened.chosen.tolist(),
            )
        return opened.layout

    def _jobs(
        self, opened: Running, layout: Layout, clients: Tensor, vectors: Tensor
    ) -> Iterator[Job]:
        degree = self.notice.parameters.degree
        count = self.notice.blocks(layout.length)
        room = count * degree - layout.length
        filled = torch.nn.functional.pad(vectors, (0, room)).cpu().numpy()
        blocks: Integers = filled.reshape(len(filled), count, degree)
        number, positions = opened.opening.number, layout.positions(clients).tolist()
        for client, position, own in zip(
            clients.tolist(), positions, blocks, strict=True
        ):
            places = _places(layout, position, degree)
            yield Job(number, client, layout.length, tuple(places), own[places])

    def _seen(self, opened: Running, layout: Layout, uploads: Uploads) -> RoundView:
        degree, room = self.notice.parameters.degree, self._room
        sizes = [
            size_of(len(_places(layout, position, degree)), room)
            for position in layout.positions(uploads.clients).tolist()
        ]
        opened.clients += len(sizes)
        opened.bytes_up += sum(sizes)
        return RoundView(
            round=opened.opening.number,
            clients=uploads.clients,
            bytes_up=torch.tensor(sizes, device=uploads.clients.device),
        )

    @property
    def _room(self) -> int:
        return self.notice.parameters.room(self.notice.seeded)

    def _spent(
        self, opened: Running, layout: Layout, message: bytes, seconds: float
    ) -> Spent:
        share = opened.clients / max(opened.encrypted, 1)
        readers = opened.clients if self.terms.shared else 1
        plain = 4 * layout.plain_numbers * opened.clients
        return Spent(
            bytes_up=opened.bytes_up,
            bytes_down=readers * len(message),
            client_seconds=opened.preparing + opened.encrypting * share,
            server_seconds=opened.adding * share,
            other={
                "key_holder_seconds": seconds,
                "ciphertext_expansion": opened.bytes_up / plain,
            },
        )


def _chosen(opening: Opening, sample: int) -> Tensor:
    """The clients of a cohort that are encrypted for real."""
    clients = opening.clients
    if not sample or sample >= len(clients):
        return clients
    order = opening.stream.of("sample").bits(clients, torch.zeros_like(clients))
    return clients[order.argsort(stable=True)[:sample]].sort().values


def _added(sums: Tensor | None, vectors: Tensor) -> Tensor | None:
    if not len(vectors):
        return sums
    here = vectors.sum(0)
    return here if sums is None else sums + here


def _places(layout: Layout, position: int, degree: int) -> list[int]:
    """Blocks of a client's vector that may hold something, by public facts alone."""
    last = -(-layout.shared // degree)
    places = set(range(last))
    for start, stop in layout.own(position):
        places |= set(range(start // degree, -(-stop // degree)))
    return sorted(places)
