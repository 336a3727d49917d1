"""One client's side of a round of secure aggregation."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from privfed.channels.masked import keys, shamir
from privfed.channels.masked.cover import Where, add
from privfed.channels.masked.masks import Masks, Words
from privfed.channels.masked.packing import pack
from privfed.channels.masked.wire import (
    PublicKeys,
    Refused,
    Request,
    Revealed,
    Rules,
    Sealed,
)


def mask_key(own: X25519PrivateKey, other: PublicKeys) -> bytes:
    """The key of the mask that two clients share, from either one's private key."""
    return keys.agree(own, other.masking, b"privfed mask")


@dataclass
class Device:
    """A client with its secrets of one round, which leave it only masked or sealed.

    Stages must come in order, each once; Refused otherwise. A device answers one
    request about each neighbor's share: the one of its seed or the one of its key,
    never both, as the two together would open that neighbor's upload.
    """

    rules: Rules
    position: int
    neighbors: NDArray[np.int64]  # (degree,) positions, ascending
    seed: bytes = field(default_factory=lambda: os.urandom(keys.KEY_BYTES), repr=False)
    _sealing: X25519PrivateKey = field(default_factory=keys.new, repr=False)
    _masking: X25519PrivateKey = field(default_factory=keys.new, repr=False)
    _known: Sequence[PublicKeys] = ()
    _pairs: Sequence[bytes] = field(default=(), repr=False)
    _inbox: Sealed = ()
    _answered: bool = False

    def advertise(self) -> PublicKeys:
        """Stage 1: the public halves of this round's keys."""
        return PublicKeys(keys.public(self._sealing), keys.public(self._masking))

    def share(self, known: Sequence[PublicKeys]) -> Sealed:
        """Stage 2: a share of both secrets for each neighbor, sealed for it."""
        self._expect(not self._known, "its keys were shared already")
        self._known = known
        self._pairs = [
            keys.agree(self._sealing, one.sealing, b"privfed seal", 2) for one in known
        ]
        secrets = np.frombuffer(self._masking.private_bytes_raw() + self.seed, np.uint8)
        elements = shamir.to_limbs(secrets.reshape(2, -1)).reshape(-1)
        powers = shamir.points(self.rules.threshold, len(known))
        shares = shamir.split(elements, powers).astype("<u2")
        return [
            keys.seal(_half(pair, self.position < to), share.tobytes())
            for pair, to, share in zip(self._pairs, self.neighbors, shares, strict=True)
        ]

    def mask(
        self, vector: Words, inbox: Sealed, covers: Sequence[Where], masks: Masks
    ) -> NDArray[np.uint8]:
        """Stage 3: the vector, masked.

        ``inbox`` holds what each neighbor sealed for this device, ``covers`` which
        words of the vector its mask covers.
        """
        self._expect(bool(self._pairs) and not self._inbox, "masking comes once, third")
        self._inbox = inbox
        words = vector + masks.mask(self.seed, len(vector))
        for other, known, where in zip(
            self.neighbors, self._known, covers, strict=True
        ):
            add(
                words,
                where,
                mask_key(self._masking, known),
                masks,
                self.position > other,
            )
        return pack(words, self.rules.bits)

    def reveal(self, request: Request) -> Revealed:
        """Stage 4: of each neighbor, the share that opens the sum and no upload."""
        self._expect(bool(self._inbox) and not self._answered, "it answers once, last")
        survived = self._checked(request)
        self._answered = True
        both = self._opened()  # (neighbors, key or seed, limbs)
        return Revealed(both[np.arange(len(both)), survived.astype(np.int64)])

    def _opened(self) -> NDArray[np.uint16]:
        """What the neighbors sealed: each one's share of its key and of its seed."""
        try:
            opened = [
                keys.unseal(_half(pair, other < self.position), message)
                for pair, other, message in zip(
                    self._pairs, self.neighbors, self._inbox, strict=True
                )
            ]
        except ValueError as error:
            raise Refused(f"client at position {self.position}: {error}") from None
        return np.frombuffer(b"".join(opened), "<u2").reshape(len(opened), 2, -1)

    def _checked(self, request: Request) -> NDArray[np.bool_]:
        """Which neighbors survived; Refused where the request must not be answered."""
        told = np.concatenate([request.survivors, request.dropped])
        both = np.intersect1d(request.survivors, request.dropped)
        self._expect(not len(both), f"both shares of client {both[:1]} were asked for")
        one_each = np.array_equal(np.sort(told), self.neighbors)
        self._expect(one_each, "a request names each neighbor once")
        enough = len(request.survivors) >= self.rules.threshold
        self._expect(enough, f"only {len(request.survivors)} neighbors are left")
        self._expect(
            request.clients >= self.rules.fewest,
            f"the sum is over {request.clients} clients only",
        )
        return np.isin(self.neighbors, request.survivors)

    def _expect(self, fine: bool, why: str) -> None:
        if not fine:
            raise Refused(f"client at position {self.position} refuses: {why}")


def _half(pair: bytes, first: bool) -> bytes:
    """The key of one direction between two clients."""
    middle = keys.KEY_BYTES
    return pair[:middle] if first else pair[middle:]
