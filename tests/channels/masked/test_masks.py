"""A mask is its key's keystream: the same for both ends, unlike any other."""

import numpy as np
import pytest

from privfed.channels.masked.masks import Masks
from tests.channels.masked.parties import stream


@pytest.mark.parametrize("bits", [8, 32, 33, 64])
def test_a_mask_is_the_keystream_as_integers(bits: int) -> None:
    masks, key = Masks.of(10, bits), bytes(range(32))

    long = masks.mask(key, 10).copy()

    assert long.tolist() == stream(key, 10, bits)
    assert masks.mask(key, 4).tolist() == long[:4].tolist()


def test_masks_of_two_keys_are_unrelated() -> None:
    masks = Masks.of(5000, 32)
    one, other = (masks.mask(bytes([k] * 32), 5000).copy() for k in (0, 1))

    assert (one == other).mean() < 0.01
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.1
