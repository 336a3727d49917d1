"""Integers survive the wire in exactly as many bits as they need."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privfed.channels.masked.masks import word_type
from privfed.channels.masked.packing import pack, packed_size, unpack

BITS = st.integers(1, 64)


def naive(values: list[int], bits: int) -> bytes:
    """One long integer, lowest value first."""
    whole = sum(value << (bits * k) for k, value in enumerate(values))
    return whole.to_bytes(packed_size(len(values), bits), "little")


@given(bits=BITS, seed=st.integers(0, 99), length=st.integers(0, 40))
def test_packed_bytes_are_one_long_integer(bits: int, seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    values = [int.from_bytes(rng.bytes(8), "little") % 2**bits for _ in range(length)]
    words = np.array(values, word_type(bits))

    packed = pack(words, bits)

    assert packed.tobytes() == naive(values, bits)
    assert (unpack(packed, length, bits) == words).all()


@given(bits=BITS)
def test_what_is_above_the_modulus_is_left_out(bits: int) -> None:
    words = np.full(9, ~np.uint64(0)).astype(word_type(bits))

    assert (unpack(pack(words, bits), 9, bits) == (1 << bits) - 1).all()


def test_a_message_of_the_wrong_length_is_refused() -> None:
    packed = pack(np.arange(10, dtype=np.uint32), 13)

    for wrong in (packed[:-1], np.append(packed, np.uint8(0))):
        with pytest.raises(ValueError, match="10 integers of 13 bits take 17 bytes"):
            unpack(wrong, 10, 13)
