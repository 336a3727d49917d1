"""Integers of few bits, end to end, as they travel."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from privfed.channels.masked.masks import Words, word_type


def packed_size(length: int, bits: int) -> int:
    """Bytes that ``length`` integers of ``bits`` bits take."""
    return -(-length * bits // 8)


def pack(words: Words, bits: int) -> NDArray[np.uint8]:
    """The low ``bits`` bits of each word, lowest first."""
    if bits == 8 * words.itemsize:
        return words.astype(words.dtype.newbyteorder("<")).view(np.uint8)
    groups = np.zeros((-(-len(words) // 8), 8), words.dtype)
    groups.reshape(-1)[: len(words)] = words
    groups &= words.dtype.type((1 << bits) - 1)
    out = np.zeros((len(groups), bits), np.uint8)
    for byte, k, left in _overlaps(bits):
        out[:, byte] |= _shifted(groups[:, k], left).astype(np.uint8)
    return out.reshape(-1)[: packed_size(len(words), bits)]


def unpack(packed: NDArray[np.uint8], length: int, bits: int) -> Words:
    """The words that were packed.

    Raises ValueError where the bytes are not as many as they must be.
    """
    if len(packed) != packed_size(length, bits):
        raise ValueError(
            f"{length} integers of {bits} bits take {packed_size(length, bits)} "
            f"bytes, got {len(packed)}"
        )
    kind = word_type(bits)
    if bits == 8 * kind().itemsize:
        return packed.view(np.dtype(kind).newbyteorder("<"))
    whole = np.zeros(-(-length // 8) * bits, np.uint8)
    whole[: len(packed)] = packed
    out = np.zeros((len(whole) // bits, 8), kind)
    for byte, k, left in _overlaps(bits):
        out[:, k] |= _shifted(whole[byte::bits].astype(kind), -left)
    out &= kind((1 << bits) - 1)
    return out.reshape(-1)[:length]


def _overlaps(bits: int) -> Iterator[tuple[int, int, int]]:
    """Of eight integers, which fill exactly ``bits`` bytes: (byte, integer, shift).

    The byte's part of the integer is the integer shifted left by so many bits.
    """
    for byte in range(bits):
        for k in range(8 * byte // bits, (8 * byte + 7) // bits + 1):
            yield byte, k, bits * k - 8 * byte


def _shifted(value: Words, left: int) -> Words:
    shift = value.dtype.type(abs(left))
    shifted: Words = value << shift if left >= 0 else value >> shift
    return shifted
