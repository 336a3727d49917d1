"""A round of secure aggregation from its first message to its last.

Bonawitz et al., CCS 2017, Figure 4 without its signatures, on the graph of Bell et
al., CCS 2020: (1) devices publish keys, (2) send their neighbors shares of two secrets,
(3) send masked vectors, (4) give the shares that open the sum. Devices hold secrets,
the server none; here they are objects that exchange the messages of ``wire``, and what
each message takes is counted.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from privfed.channels.masked.cover import Cover
from privfed.channels.masked.device import Device
from privfed.channels.masked.graph import Graph
from privfed.channels.masked.masks import Masks, Words
from privfed.channels.masked.server import Server
from privfed.channels.masked.wire import (
    PUBLIC_BYTES,
    SEALED_BYTES,
    Revealed,
    Rules,
)

Stage = Literal["keys", "shares", "ids", "masked input", "unmasking"]


@dataclass
class Cost:
    """Bytes over all clients, and processor seconds."""

    bytes_up: int = 0
    bytes_down: int = 0
    client_seconds: float = 0.0
    server_seconds: float = 0.0

    @contextmanager
    def of_clients(self) -> Iterator[None]:
        start = time.thread_time()
        yield
        self.client_seconds += time.thread_time() - start

    @contextmanager
    def of_server(self) -> Iterator[None]:
        start = time.thread_time()
        yield
        self.server_seconds += time.thread_time() - start


@dataclass
class Protocol:
    """All parties of one round; clients are known by their position in the cohort."""

    devices: Sequence[Device]
    server: Server
    masks: Masks
    costs: dict[Stage, Cost] = field(default_factory=dict)

    @classmethod
    def begin(cls, graph: Graph, rules: Rules, size: int) -> "Protocol":
        """Stages 1 and 2, for sums of ``size`` words."""
        server = Server(rules, graph, size)
        devices = [Device(rules, k, row) for k, row in enumerate(graph.neighbors)]
        started = cls(devices, server, Masks.of(size, rules.bits))
        started._publish()
        started._share()
        return started

    def _publish(self) -> None:
        cost, many = self.cost("keys"), self.server.graph.neighbors.size
        with cost.of_clients():
            self.server.known = [device.advertise() for device in self.devices]
        cost.bytes_up += PUBLIC_BYTES * len(self.devices)
        cost.bytes_down += PUBLIC_BYTES * many

    def _share(self) -> None:
        cost, many = self.cost("shares"), self.server.graph.neighbors.size
        with cost.of_clients():
            self.server.mail = [
                device.share(self.server.keys_for(device.position))
                for device in self.devices
            ]
        cost.bytes_up += SEALED_BYTES * many
        cost.bytes_down += SEALED_BYTES * many

    def send(self, client: int, vector: Words, cover: Cover) -> int:
        """Stage 3 for one client, with the words that it sends; return their bytes."""
        cost = self.cost("masked input")
        with cost.of_server():
            inbox, covers = self.server.mail_for(client), cover.own(client)
        with cost.of_clients():
            packed = self.devices[client].mask(vector, inbox, covers, self.masks)
        with cost.of_server():
            self.server.receive(client, packed, cover)
        cost.bytes_up += packed.nbytes
        cost.bytes_down += cover.bytes_down(client)
        return packed.nbytes

    def finish(self, cover: Cover) -> Words:
        """Stage 4: the sum over the clients that sent, modulo 2^bits.

        Raises Refused where fewer than ``rules.fewest`` did, and PrivfedError where
        too few neighbors of some client are left.
        """
        cost, answers = self.cost("unmasking"), dict[int, Revealed]()
        self.server.expect_enough()
        for client in self.server.delivered.nonzero()[0].tolist():
            with cost.of_server():
                request = self.server.request_for(client)
            with cost.of_clients():
                answers[client] = self.devices[client].reveal(request)
            cost.bytes_up += answers[client].size
            cost.bytes_down += request.size
        with cost.of_server():
            return self.server.open(answers, cover)

    def cost(self, stage: Stage) -> Cost:
        return self.costs.setdefault(stage, Cost())
