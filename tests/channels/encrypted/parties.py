"""Keys, devices and servers without a run around them."""

from collections.abc import Sequence

import numpy as np

from privfed.channels.encrypted.coding import Integers
from privfed.channels.encrypted.device import Device, Job
from privfed.channels.encrypted.keys import KeyHolder
from privfed.channels.encrypted.parameters import LADDERS, Scheme, cheapest
from privfed.channels.encrypted.server import Server

LENGTH = 5000  # more than one ciphertext, and none of them full
ROUND = 2
KINDS: Sequence[tuple[Scheme, bool]] = [
    (scheme, seeded) for scheme in LADDERS for seeded in (True, False)
]


def holder(scheme: Scheme = "bfv", seeded: bool = True, least: int = 2) -> KeyHolder:
    return KeyHolder(cheapest(scheme, seeded, 943, 1e7), seeded, least)


def job(client: int, numbers: Integers, degree: int, round: int = ROUND) -> Job:
    """A job of a whole vector."""
    blocks = -(-len(numbers) // degree)
    padded = np.zeros(blocks * degree, np.int64)
    padded[: len(numbers)] = numbers
    places = tuple(range(blocks))
    return Job(round, client, len(numbers), places, padded.reshape(blocks, degree))


def sealed(
    of: KeyHolder, vectors: Sequence[Integers], round: int = ROUND
) -> list[bytes]:
    """Envelopes of clients 0, 1, and so on."""
    device, degree = Device(of.credentials), of.notice.parameters.degree
    return [device.seal(job(k, v, degree, round)) for k, v in enumerate(vectors)]


def server(of: KeyHolder, clients: int, length: int = LENGTH) -> Server:
    return Server(of.notice, ROUND, length, range(clients))


def vectors(clients: int, largest: int, length: int = LENGTH) -> list[Integers]:
    rng = np.random.default_rng(clients)
    return list(rng.integers(-largest, largest + 1, (clients, length)))


def added(of: KeyHolder, of_clients: Sequence[Integers]) -> bytes:
    """The server's message to the key holder."""
    there = server(of, len(of_clients), len(of_clients[0]))
    for envelope in sealed(of, of_clients):
        there.receive(envelope)
    return there.sum()
