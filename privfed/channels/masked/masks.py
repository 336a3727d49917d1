"""Masks: a keystream read as integers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

Words = NDArray[Any]  # uint32 or uint64; arithmetic on them wraps, as it must
_COUNTER = bytes(16)  # every key encrypts one stream


def word_type(bits: int) -> Any:
    """The machine word that holds integers modulo 2^bits."""
    return np.uint32 if bits <= 32 else np.uint64


@dataclass(frozen=True)
class Masks:
    """Makes masks of up to ``length`` words; one thread at a time may use it."""

    length: int
    bits: int
    zeros: bytes
    stream: bytearray

    @classmethod
    def of(cls, length: int, bits: int) -> "Masks":
        size = length * word_type(bits)().itemsize
        return cls(length, bits, bytes(size), bytearray(size + 15))

    def mask(self, key: bytes, length: int) -> Words:
        """Uniform words (length,) from a key; they last until the next call.

        AES-256 in counter mode.
        """
        kind = np.dtype(word_type(self.bits)).newbyteorder("<")
        size = length * kind.itemsize
        cipher = Cipher(algorithms.AES(key), modes.CTR(_COUNTER)).encryptor()
        cipher.update_into(memoryview(self.zeros)[:size], self.stream)
        return np.frombuffer(self.stream, kind, length)
