"""The server's side: adds up what it cannot read."""

from collections.abc import Iterable
from typing import Any

from tenseal import sealapi

from privfed.channels.encrypted.coding import context_of
from privfed.channels.encrypted.envelope import Envelope, Expected, Refused, parse
from privfed.channels.encrypted.parameters import Notice
from privfed.channels.encrypted.scratch import Scratch


class Server:
    """One round's sum. It is given the parameters and the name of the key: no key."""

    def __init__(
        self, notice: Notice, round: int, length: int, clients: Iterable[int]
    ) -> None:
        self._notice, self._round, self._length = notice, round, length
        self._blocks = notice.blocks(length)
        self._context = context_of(notice.parameters)
        self._evaluator = sealapi.Evaluator(self._context)
        self._scratch = Scratch()
        self._waiting = set(clients)
        self._sums: dict[int, Any] = {}
        self._received = 0

    def receive(self, data: bytes) -> int:
        """Add one upload; return its client.

        Raises Refused where it is none of this round and key, or comes twice.
        """
        notice = self._notice
        room = notice.parameters.room(notice.seeded)
        upload = parse(
            data,
            Expected(
                "upload", notice.key_id, self._round, self._length, self._blocks, room
            ),
        )
        if upload.number not in self._waiting:
            raise Refused(f"client {upload.number} is not asked for, or sent already")
        read = [(index, self._read(block)) for index, block in upload.blocks.items()]
        self._waiting.remove(upload.number)
        for index, ciphertext in read:
            self._add(index, ciphertext)
        self._received += 1
        return upload.number

    def _read(self, block: bytes) -> Any:
        ciphertext = sealapi.Ciphertext(self._context)
        try:
            self._scratch.load(ciphertext, self._context, block)
        except ValueError as error:
            raise Refused(str(error)) from None
        if ciphertext.size() != 2 or ciphertext.scale != 1.0:
            raise Refused("a ciphertext has another form than a fresh one")
        return ciphertext

    def _add(self, index: int, ciphertext: Any) -> None:
        if index in self._sums:
            self._evaluator.add_inplace(self._sums[index], ciphertext)
        else:
            self._sums[index] = ciphertext

    def sum(self) -> bytes:
        """The envelope for the key holder."""
        blocks = {index: self._scratch.save(sum_) for index, sum_ in self._sums.items()}
        notice = self._notice
        envelope = Envelope(
            "sum", notice.key_id, self._round, self._received, self._length, blocks
        )
        return envelope.pack(notice.parameters.room(seeded=False))
