"""The largest part of an upload."""

from dataclasses import replace
from math import ceil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from privfed.defenses.quantize import Quantize
from privfed.defenses.top_k import TopK
from privfed.errors import SettingsError
from privfed.messages import Rows, Uploads
from tests.defenses.uploads import CLIENTS, SHAPE, TURN, sent, some


def kept(count: int, share: float) -> int:
    return ceil(count * share - 1e-9)


@given(st.floats(0.01, 0.99))
def test_each_client_keeps_its_longest_rows(share: float) -> None:
    after = TopK(share).on_upload(sent(), TURN)

    for name in ("items", "items_mlp"):
        for k in range(CLIENTS):
            own = some(sent(), [k]).rows[name]
            left = some(after, [k]).rows[name]
            length = own.value.norm(dim=1)
            best = length.topk(kept(len(own.item), share)).indices.sort().values
            assert torch.equal(left.item, own.item[best])
            assert torch.equal(left.value, own.value[best])


def test_rows_leave_dense_tensors_whole() -> None:
    after = TopK(0.2).on_upload(sent(), TURN)

    assert torch.equal(after.dense["layer.weight"], sent().dense["layer.weight"])
    assert torch.equal(after.users["users"], sent().users["users"])


@given(st.floats(0.01, 0.99))
def test_each_client_keeps_its_largest_numbers_of_each_tensor(share: float) -> None:
    after = TopK(share, "numbers").on_upload(sent(), TURN)

    for k in range(CLIENTS):
        one, left = some(sent(), [k]), some(after, [k])
        for name, value in {**one.dense, **one.users}.items():
            expected = torch.zeros(value.numel())
            flat = value.flatten()
            best = flat.abs().topk(kept(len(flat), share)).indices
            expected[best] = flat[best]
            found = {**left.dense, **left.users}[name].flatten()
            assert torch.equal(found, expected)
        for name, rows in one.rows.items():
            flat = rows.value.flatten()
            best = flat.abs().topk(kept(len(flat), share)).indices
            expected = torch.zeros(len(flat))
            expected[best] = flat[best]
            table = torch.zeros(50, rows.value.shape[1])
            table[rows.item] = expected.view(rows.value.shape)
            sparse = torch.zeros_like(table)
            sparse[left.rows[name].item] = left.rows[name].value
            assert torch.equal(sparse, table)
            assert left.rows[name].value.any(1).all()


def test_bytes_are_those_of_positions_and_values() -> None:
    share = 0.1
    after = TopK(share, "numbers").on_upload(sent(), TURN)

    for k in range(CLIENTS):
        one = some(sent(), [k])
        sizes = [v.numel() for v in (*one.dense.values(), *one.users.values())]
        sizes += [rows.value.numel() for rows in one.rows.values()]
        expected = sum(8 * kept(size, share) for size in sizes) + 4  # and the weight
        assert int(some(after, [k]).bytes_up(SHAPE)) == expected


def test_a_tensor_is_never_sent_in_more_than_its_own_bytes() -> None:
    before = sent().bytes_up(SHAPE)
    after = TopK(0.9, "numbers").on_upload(sent(), TURN)

    assert (after.bytes_up(SHAPE) <= before).all()
    assert int(after.packed["layer.weight"][0]) == 4 * 24


def test_fewer_rows_are_fewer_bytes() -> None:
    after = TopK(0.1).on_upload(sent(), TURN)

    for k in range(CLIENTS):
        one = some(sent(), [k])
        rows = kept(len(one.rows["items"].item), 0.1)
        rest = replace(one, rows={}).bytes_up(SHAPE)
        expected = rest + rows * (4 + 12 * 4) + rows * (4 + 5 * 4)
        assert torch.equal(some(after, [k]).bytes_up(SHAPE), expected)


def test_of_equal_rows_the_first_are_kept() -> None:
    rows = Rows(torch.zeros(6, dtype=torch.int64), torch.arange(6), torch.ones(6, 2))
    upload = Uploads(torch.tensor([4]), {"items": rows}, scale={"items": 1.0})

    assert TopK(0.5).on_upload(upload, TURN).rows["items"].item.tolist() == [0, 1, 2]


@pytest.mark.parametrize("defense", [TopK(0.5), TopK(0.5, "numbers"), Quantize(4)])
def test_an_upload_is_packed_once(defense: TopK | Quantize) -> None:
    packed = Quantize(8).on_upload(sent(), TURN)
    with pytest.raises(SettingsError, match=r"packed .* already; keep one of"):
        defense.on_upload(packed, TURN)


def test_rows_first_and_then_few_bits_go_together() -> None:
    both = Quantize(8).on_upload(TopK(0.1).on_upload(sent(), TURN), TURN)
    assert (
        both.bytes_up(SHAPE) < TopK(0.1).on_upload(sent(), TURN).bytes_up(SHAPE)
    ).all()


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_an_unusable_share_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        TopK(share)
