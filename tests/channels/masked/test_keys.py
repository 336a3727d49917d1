"""Two parties agree on a key, and a sealed message opens for nobody else."""

import pytest

from privfed.channels.masked import keys


def test_both_ends_agree_and_purposes_differ() -> None:
    one, other = keys.new(), keys.new()

    ours = keys.agree(one, keys.public(other), b"a")

    assert ours == keys.agree(other, keys.public(one), b"a")
    assert ours != keys.agree(one, keys.public(other), b"b")
    assert len(keys.agree(one, keys.public(other), b"a", 2)) == 2 * len(ours) == 64


def test_a_restored_key_is_the_same() -> None:
    key = keys.new()

    assert keys.public(keys.restored(key.private_bytes_raw())) == keys.public(key)


def test_keys_are_fresh() -> None:
    assert len({keys.public(keys.new()) for _ in range(20)}) == 20


def test_a_sealed_message_opens_with_its_key_alone() -> None:
    key, other = bytes(32), bytes([1] * 32)
    sealed = keys.seal(key, b"share")

    assert keys.unseal(key, sealed) == b"share"
    assert b"share" not in sealed
    assert len(sealed) == len(b"share") + keys.TAG_BYTES
    for wrong_key, wrong in ((other, sealed), (key, sealed[:-1] + b"\0")):
        with pytest.raises(ValueError, match="changed on its way"):
            keys.unseal(wrong_key, wrong)
