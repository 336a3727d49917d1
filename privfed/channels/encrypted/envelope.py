"""What travels: ciphertexts with the key, round and sender that they belong to.

An envelope is read by parties who do not trust where it comes from: every count and
length is checked before use, and nothing is unpickled. It is filled up with zeros to a
length that follows from public facts, so its size tells nothing.
"""

import struct
from dataclasses import dataclass
from typing import Literal

from privfed.errors import PrivfedError

KEY_ID_BYTES = 16
_HEAD = struct.Struct("<4sB16sIqII")  # magic, kind, key, round, number, length, count
_BLOCK = struct.Struct("<II")  # index, bytes
_MAGIC = b"PFE1"
_KINDS: tuple[Literal["upload"], Literal["sum"]] = ("upload", "sum")


class Refused(PrivfedError):
    """An envelope that its reader does not accept."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"an encrypted message was refused: {why}; run the round again, and if "
            "that does not help, look at who sent it"
        )


@dataclass(frozen=True)
class Expected:
    """What a reader knows of an envelope before it arrives."""

    kind: Literal["upload", "sum"]
    key_id: bytes
    round: int
    length: int  # numbers in the vector
    blocks: int  # ciphertexts that such a vector takes
    room: int  # bytes of one ciphertext at most


@dataclass(frozen=True)
class Envelope:
    """``number``: the client of an upload, or how many uploads a sum holds.

    ``blocks`` are saved ciphertexts by their place in the vector; a place without one
    is all zeros, which follows from public facts.
    """

    kind: Literal["upload", "sum"]
    key_id: bytes
    round: int
    number: int
    length: int
    blocks: dict[int, bytes]

    def pack(self, room: int) -> bytes:
        """The bytes, with ``room`` for each ciphertext."""
        data = size_of(len(self.blocks), room)
        head = _HEAD.pack(
            _MAGIC,
            _KINDS.index(self.kind),
            self.key_id,
            self.round,
            self.number,
            self.length,
            len(self.blocks),
        )
        parts = [head]
        for index, block in sorted(self.blocks.items()):
            if len(block) > room:
                raise Refused(f"a ciphertext has {len(block)} bytes and room {room}")
            parts += [_BLOCK.pack(index, len(block)), block]
        return b"".join(parts).ljust(data, b"\0")


def size_of(blocks: int, room: int) -> int:
    """Bytes of an envelope with so many ciphertexts."""
    return _HEAD.size + blocks * (_BLOCK.size + room)


def parse(data: bytes, expected: Expected) -> Envelope:
    """Read an envelope that is what it should be; raises Refused otherwise."""
    if len(data) < _HEAD.size:
        raise Refused(f"{len(data)} bytes are too few")
    magic, kind, key_id, round, number, length, count = _HEAD.unpack_from(data)
    if magic != _MAGIC or kind >= len(_KINDS) or _KINDS[kind] != expected.kind:
        raise Refused(f"it is no {expected.kind}")
    if key_id != expected.key_id:
        raise Refused("it was made with another key")
    if round != expected.round:
        raise Refused(f"it is of round {round + 1}, not of {expected.round + 1}")
    if length != expected.length:
        raise Refused(f"it holds {length} numbers instead of {expected.length}")
    if count > expected.blocks or len(data) != size_of(count, expected.room):
        raise Refused(f"{len(data)} bytes do not hold {count} ciphertexts")
    return Envelope(
        expected.kind, key_id, round, number, length, _blocks(data, count, expected)
    )


def _blocks(data: bytes, count: int, expected: Expected) -> dict[int, bytes]:
    blocks: dict[int, bytes] = {}
    at, last = _HEAD.size, -1
    for _ in range(count):
        index, size = _BLOCK.unpack_from(data, at)
        at += _BLOCK.size
        if not last < index < expected.blocks:
            raise Refused("its ciphertexts are out of order")
        if size > expected.room:
            raise Refused(f"a ciphertext of {size} bytes is too long")
        blocks[index], last = data[at : at + size], index
        at += size
    if any(data[at:]):
        raise Refused("there is something after its ciphertexts")
    return blocks
