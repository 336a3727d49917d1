"""A small cohort, and the protocol told once more, naively and all in one place."""

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privfed.channels.masked.cover import Whole
from privfed.channels.masked.device import Device
from privfed.channels.masked.graph import Graph
from privfed.channels.masked.masks import Words, word_type
from privfed.channels.masked.protocol import Protocol
from privfed.channels.masked.wire import Rules


def begun(
    clients: int,
    size: int,
    degree: int = 0,
    bits: int = 32,
    threshold: int = 0,
    fewest: int = 2,
) -> Protocol:
    """A protocol after stage 2, on a complete graph unless a degree is given."""
    degree = degree or clients - 1
    graph = Graph.ring(np.random.default_rng(1).permutation(clients), degree)
    rules = Rules(threshold or degree // 2 + 1, fewest, bits)
    return Protocol.begin(graph, rules, size)


def vectors(clients: int, size: int, bits: int, seed: int = 0) -> Words:
    """Integers so small that their sum does not wrap."""
    most = 2 ** (bits - 1) // clients
    drawn = np.random.default_rng(seed).integers(0, most, (clients, size))
    return drawn.astype(word_type(bits))


def sent(protocol: Protocol, given: Words, dropped: Sequence[int] = ()) -> Words:
    """What all clients but those dropped send, through to the opened sum."""
    cover = Whole(protocol.server.graph.degree)
    for client, vector in enumerate(given):
        if client not in dropped:
            protocol.send(client, vector, cover)
    return protocol.finish(cover)


def stream(key: bytes, size: int, bits: int) -> list[int]:
    """The keystream as Python integers."""
    width = 4 if bits <= 32 else 8
    cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    raw = cipher.update(bytes(width * size))
    return [
        int.from_bytes(raw[width * k : width * (k + 1)], "little") for k in range(size)
    ]


def naive_mask(devices: Sequence[Device], client: int, size: int) -> list[int]:
    """Bonawitz et al.'s mask of one client, from everybody's secrets.

    Its own, plus those shared with clients before it, minus those with clients after.
    """
    own = devices[client]
    bits = own.rules.bits
    mask = stream(own.seed, size, bits)
    for other in own.neighbors:
        secret = _private(own).exchange(_private(devices[other]).public_key())
        key = HKDF(hashes.SHA256(), 32, None, b"privfed mask").derive(secret)
        sign = 1 if client > other else -1
        mask = [
            m + sign * s for m, s in zip(mask, stream(key, size, bits), strict=True)
        ]
    return [m % 2**bits for m in mask]


def _private(device: Device) -> X25519PrivateKey:
    key = device._masking
    assert isinstance(key, X25519PrivateKey)
    return key
