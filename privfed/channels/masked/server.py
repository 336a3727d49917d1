"""The server's side of a round of secure aggregation: it holds no secret of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from privfed.channels.masked import keys, shamir
from privfed.channels.masked.cover import Cover, add, length
from privfed.channels.masked.device import mask_key
from privfed.channels.masked.graph import Graph
from privfed.channels.masked.masks import Masks, Words, word_type
from privfed.channels.masked.packing import unpack
from privfed.channels.masked.wire import (
    PublicKeys,
    Refused,
    Request,
    Revealed,
    Rules,
    Sealed,
)
from privfed.errors import PrivfedError


@dataclass
class Server:
    """Relays what is sealed, adds what is masked, opens the sum.

    It sees public keys, sealed messages, masked vectors and, at the end, the shares
    that rebuild survivors' own masks and dropped clients' keys.
    """

    rules: Rules
    graph: Graph
    size: int  # words of the sum
    known: Sequence[PublicKeys] = ()
    mail: Sequence[Sealed] = ()
    sum: Words = field(init=False, repr=False)
    delivered: NDArray[np.bool_] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.sum = np.zeros(self.size, word_type(self.rules.bits))
        self.delivered = np.zeros(self.graph.clients, bool)

    def keys_for(self, client: int) -> Sequence[PublicKeys]:
        """Stage 1, down: the neighbors' public keys."""
        return [self.known[other] for other in self.graph.neighbors[client]]

    def mail_for(self, client: int) -> Sealed:
        """Stage 2, down: what each neighbor sealed for this client."""
        places = zip(self.graph.neighbors[client], self.graph.back[client], strict=True)
        return [self.mail[other][at] for other, at in places]

    def receive(self, client: int, packed: NDArray[np.uint8], cover: Cover) -> None:
        """Stage 3: add a masked vector. Refused if the client sent one before."""
        if self.delivered[client]:
            raise Refused(f"client at position {client} sent a second vector")
        where = cover.sent(client)
        words = unpack(packed, length(where, self.size), self.rules.bits)
        if isinstance(where, slice):
            np.add(self.sum, words, out=self.sum)
        else:
            self.sum[where] += words
        self.delivered[client] = True

    def request_for(self, client: int) -> Request:
        """Stage 4, down: who of a client's neighbors is in the sum."""
        neighbors = self.graph.neighbors[client]
        here = self.delivered[neighbors]
        return Request(neighbors[here], neighbors[~here], int(self.delivered.sum()))

    def open(self, answers: Mapping[int, Revealed], cover: Cover) -> Words:
        """The sum over the clients that delivered, modulo 2^bits, from their answers.

        Raises PrivfedError where too few answered, or where shares do not fit.
        """
        secrets = self._rebuilt(answers)
        total, masks = self.sum.copy(), Masks.of(self.size, self.rules.bits)
        for client, secret in enumerate(secrets):
            if self.delivered[client]:
                add(total, cover.sent(client), secret.tobytes(), masks, plus=False)
            else:
                self._take_off(total, client, secret.tobytes(), cover, masks)
        total &= total.dtype.type((1 << self.rules.bits) - 1)
        return total

    def _rebuilt(self, answers: Mapping[int, Revealed]) -> shamir.Bytes:
        """Every client's seed if it delivered and its masking key if not."""
        limbs = shamir.limbs(keys.KEY_BYTES)
        told = np.zeros((*self.graph.neighbors.shape, limbs), np.uint16)
        answered = np.zeros(self.graph.clients, bool)
        for client, answer in answers.items():
            told[client], answered[client] = answer.shares, True
        there = answered[self.graph.neighbors]
        self._expect_enough(there)
        chosen = np.argsort(~there, axis=1, kind="stable")[:, : self.rules.threshold]
        holder = np.take_along_axis(self.graph.neighbors, chosen, 1)
        place = np.take_along_axis(self.graph.back, chosen, 1)
        elements = shamir.combine(told[holder, place], chosen + 1)
        try:
            return shamir.from_limbs(elements, keys.KEY_BYTES)
        except ValueError as error:
            raise PrivfedError(
                f"secagg: {error}; some client sent wrong ones"
            ) from None

    def expect_enough(self) -> None:
        """Raise PrivfedError where a secret cannot be rebuilt from those who are left.

        Their devices would refuse to answer.
        """
        self._expect_enough(self.delivered[self.graph.neighbors])

    def _expect_enough(self, there: NDArray[np.bool_]) -> None:
        fewest = int(there.sum(1).min())
        if fewest < self.rules.threshold:
            raise PrivfedError(
                f"secagg: a client has {fewest} neighbors left and its secret needs "
                f"{self.rules.threshold} shares, so the round is lost; lower "
                "dropout or raise neighbors"
            )

    def _take_off(
        self, total: Words, client: int, secret: bytes, cover: Cover, masks: Masks
    ) -> None:
        """Remove the masks that neighbors of a dropped client added."""
        private = keys.restored(secret)
        if keys.public(private) != self.known[client].masking:
            raise PrivfedError(
                f"secagg: the shares of the client at position {client} do not give "
                "its key; some client sent wrong ones"
            )
        for at, other in enumerate(self.graph.neighbors[client]):
            if self.delivered[other]:
                key = mask_key(private, self.known[other])
                added = other > client
                add(total, cover.shared(client, at), key, masks, plus=not added)
