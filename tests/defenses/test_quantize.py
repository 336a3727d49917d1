"""Numbers of few bits."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from privfed.defenses.quantize import Quantize
from privfed.messages import Uploads
from tests.defenses.uploads import CLIENTS, SHAPE, TURN, sent, some, turn


@given(st.integers(2, 12))
def test_each_number_is_a_neighbor_on_its_grid(bits: int) -> None:
    levels = 2 ** (bits - 1) - 1
    after = Quantize(bits).on_upload(sent(), TURN)

    for k in range(CLIENTS):
        one, other = some(sent(), [k]), some(after, [k])
        pairs = [(one.rows[n].value, other.rows[n].value) for n in one.rows]
        pairs += [(v, other.dense[n]) for n, v in one.dense.items()]
        pairs += [(v, other.users[n]) for n, v in one.users.items()]
        for value, found in pairs:
            if not value.numel():
                continue
            step = value.abs().max() / levels
            places = found / step
            assert (places - places.round()).abs().max() < 1e-3
            assert (found - value).abs().max() <= step * (1 + 1e-5)
            assert places.abs().max() <= levels + 1e-3


def test_rounding_is_right_on_average() -> None:
    value = torch.linspace(-1, 1, 41).repeat(CLIENTS, 1)
    upload = Uploads(torch.arange(CLIENTS), {}, {"x": value}, scale={"x": 1.0})
    rounds = [Quantize(3).on_upload(upload, turn(k)).dense["x"] for k in range(400)]
    mean = torch.stack(rounds).mean((0, 1))

    error = 5 * (1 / 3) / 2 / (400 * CLIENTS) ** 0.5

    assert ((mean - value[0]).abs() < error).all()


def test_bytes_are_bits_and_one_scale_a_tensor() -> None:
    after = Quantize(5).on_upload(sent(), TURN)

    for k in range(CLIENTS):
        one = some(sent(), [k])
        rows = len(one.rows["items"].item)

        def packed(numbers: int) -> int:
            return -(-numbers * 5 // 8) + 4

        expected = 4 + sum(packed(size) for size in (24, 6, 7))  # and the weight
        for width in (12, 5):
            expected += min(packed(rows * width) + 4 * rows, packed(50 * width))
        assert int(some(after, [k]).bytes_up(SHAPE)) == expected


def test_tables_sent_whole_are_packed_whole() -> None:
    one = torch.ones(CLIENTS)
    before = replace(sent(), rest={"items": one, "users": one})

    after = Quantize(8).on_upload(before, TURN)

    assert (after.packed["items"] == 50 * 12 + 4).all()
    assert (after.packed["users"] == 30 * 7 + 4).all()


def test_a_tensor_of_zeros_stays_one() -> None:
    upload = Uploads(torch.arange(2), {}, {"x": torch.zeros(2, 3)}, scale={"x": 1.0})
    assert not Quantize(2).on_upload(upload, TURN).dense["x"].any()


def test_two_bits_send_signs_and_zeros() -> None:
    value = Quantize(2).on_upload(sent(), TURN).dense["layer.weight"]
    largest = sent().dense["layer.weight"].abs().amax((1, 2), keepdim=True)

    assert set((value / largest).flatten().round(decimals=4).tolist()) == {-1, 0, 1}


@pytest.mark.parametrize("bits", [1, 0, 33])
def test_an_unusable_number_of_bits_is_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="bits"):
        Quantize(bits)
