"""What devices and server send each other in one round, and how large it is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privfed.channels.masked import keys, shamir
from privfed.errors import PrivfedError

SHARE_BYTES = 2 * shamir.limbs(keys.KEY_BYTES)  # of one key or seed
SEALED_BYTES = 2 * SHARE_BYTES + keys.TAG_BYTES
PUBLIC_BYTES = 2 * keys.KEY_BYTES


class Refused(PrivfedError):
    """A party was asked for what would lay an upload bare, or was sent nonsense."""


@dataclass(frozen=True)
class Rules:
    """What every party of a round knows.

    ``threshold`` shares rebuild a secret. ``fewest`` clients must be in the sum, or no
    device helps to open it. Words are integers modulo 2^``bits``.
    """

    threshold: int
    fewest: int
    bits: int


@dataclass(frozen=True)
class PublicKeys:
    """Stage 1, up and on to the neighbors: a key to seal with and one to mask with."""

    sealing: bytes
    masking: bytes


Sealed = Sequence[bytes]  # stage 2, up and on: for each neighbor, sealed for it alone


@dataclass(frozen=True)
class Request:
    """Stage 4, down: which of a device's neighbors are in the sum, and how many are.

    ``survivors`` and ``dropped`` are positions of neighbors.
    """

    survivors: NDArray[np.int64]
    dropped: NDArray[np.int64]
    clients: int

    @property
    def size(self) -> int:
        """One bit a neighbor, and the count as 32 bits."""
        return -(-(len(self.survivors) + len(self.dropped)) // 8) + 4


@dataclass(frozen=True)
class Revealed:
    """Stage 4, up: one share for each neighbor, in order.

    That of a survivor's own mask, that of a dropped client's key.
    """

    shares: NDArray[np.uint16]  # (neighbors, limbs)

    @property
    def size(self) -> int:
        return self.shares.nbytes
