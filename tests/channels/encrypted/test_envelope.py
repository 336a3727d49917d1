"""Envelopes may come from anybody: they are what they should be, or refused."""

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privfed.channels.encrypted.envelope import (
    Envelope,
    Expected,
    Refused,
    parse,
    size_of,
)

ROOM, BLOCKS = 40, 6
EXPECTED = Expected("upload", b"k" * 16, 3, 100, BLOCKS, ROOM)
BODIES = st.dictionaries(
    st.integers(0, BLOCKS - 1), st.binary(max_size=ROOM), max_size=BLOCKS
)


def envelope(blocks: dict[int, bytes]) -> Envelope:
    return Envelope("upload", EXPECTED.key_id, 3, 7, 100, blocks)


@given(blocks=BODIES)
def test_what_was_packed_is_read(blocks: dict[int, bytes]) -> None:
    data = envelope(blocks).pack(ROOM)

    assert parse(data, EXPECTED) == envelope(blocks)
    assert len(data) == size_of(len(blocks), ROOM)


@given(
    blocks=BODIES,
    changes=st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=9))),
    keep=st.integers(0, 400),
)
def test_whatever_happened_to_the_bytes_is_refused_or_harmless(
    blocks: dict[int, bytes], changes: list[tuple[int, bytes]], keep: int
) -> None:
    data = bytearray(envelope(blocks).pack(ROOM))
    for at, value in changes:
        data[at : at + len(value)] = value

    try:
        found = parse(bytes(data[:keep]), EXPECTED)
    except Refused:
        return
    assert found.key_id == EXPECTED.key_id
    assert (found.round, found.length) == (3, 100)
    assert set(found.blocks) <= set(range(BLOCKS))
    assert all(len(block) <= ROOM for block in found.blocks.values())


@given(data=st.binary(max_size=300))
def test_bytes_from_nowhere_are_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        parse(data, EXPECTED)


@pytest.mark.parametrize(
    ("expected", "why"),
    [
        (replace(EXPECTED, key_id=b"x" * 16), "another key"),
        (replace(EXPECTED, round=4), "of round 4, not of 5"),
        (replace(EXPECTED, length=101), "100 numbers instead of 101"),
        (replace(EXPECTED, kind="sum"), "no sum"),
        (replace(EXPECTED, blocks=1), "do not hold"),
        (replace(EXPECTED, room=ROOM - 1), "do not hold"),
    ],
)
def test_another_envelope_than_expected_is_refused(
    expected: Expected, why: str
) -> None:
    data = envelope({0: b"a", 1: b"b"}).pack(ROOM)
    with pytest.raises(Refused, match=why):
        parse(data, expected)


def test_a_count_that_would_fill_memory_is_refused() -> None:
    data = bytearray(envelope({0: b"a"}).pack(ROOM))
    struct.pack_into("<I", data, 37, 2**32 - 1)
    with pytest.raises(Refused, match="do not hold 4294967295"):
        parse(bytes(data), EXPECTED)


def test_ciphertexts_out_of_order_or_twice_are_refused() -> None:
    data = bytearray(envelope({0: b"a", 1: b"b"}).pack(ROOM))
    second = data.index(b"a") + 1
    for index in (0, BLOCKS):
        struct.pack_into("<I", data, second, index)
        with pytest.raises(Refused, match="out of order"):
            parse(bytes(data), EXPECTED)


def test_anything_after_the_ciphertexts_is_refused() -> None:
    data = bytearray(envelope({0: b"a"}).pack(ROOM))
    data[-1] = 1
    with pytest.raises(Refused, match="after its ciphertexts"):
        parse(bytes(data), EXPECTED)


def test_a_ciphertext_that_is_longer_than_told_is_not_packed() -> None:
    with pytest.raises(Refused, match="room 40"):
        envelope({0: bytes(41)}).pack(ROOM)
