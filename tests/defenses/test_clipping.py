"""Norms and clipping of uploads, against one client and one number at a time."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from privfed.defenses.clipping import Per, clipped, squared
from privfed.messages import Uploads
from tests.defenses.uploads import CLIENTS, alike, sent, some

SIZE = {
    "items": 2.0,
    "items_mlp": 0.5,
    "layer.weight": 3.0,
    "layer.bias": 1.0,
    "users": 0.1,
}
Norms = list[float]


def by_hand(of: Uploads, per: Per) -> list[Norms]:
    """Each client's norms of rows, tensors or the upload, in units."""
    found: list[Norms] = []
    for k in range(len(of.clients)):
        one = some(of, [k])
        tensors = {
            n: [r.tolist() for r in rows.value / SIZE[n]]
            for n, rows in one.rows.items()
        }
        tensors["users"] = (one.users["users"] / SIZE["users"]).tolist()
        weight = one.dense["layer.weight"][0] / SIZE["layer.weight"]
        tensors["layer.weight"] = weight.tolist()
        bias = one.dense["layer.bias"][0] / SIZE["layer.bias"]
        tensors["layer.bias"] = [[x] for x in bias.tolist()]
        squares = [[sum(x * x for x in r) for r in rows] for rows in tensors.values()]
        if per == "row":
            parts = [square for rows in squares for square in rows]
        elif per == "tensor":
            parts = [sum(rows) for rows in squares]
        else:
            parts = [sum(sum(rows) for rows in squares)]
        found.append([square**0.5 for square in parts])
    return found


@pytest.mark.parametrize("per", ["row", "tensor", "upload"])
@pytest.mark.parametrize("clip", [0.3, 4.0, 100.0])
def test_each_part_is_cut_to_the_norm_and_no_further(per: Per, clip: float) -> None:
    before, after = by_hand(sent(), per), by_hand(clipped(sent(), clip, per, SIZE), per)

    for long, short in zip(before, after, strict=True):
        for length, left in zip(long, short, strict=True):
            assert left == pytest.approx(min(length, clip), rel=1e-5)


@pytest.mark.parametrize("per", ["row", "tensor", "upload"])
def test_what_is_short_enough_keeps_its_bits(per: Per) -> None:
    alike(clipped(sent(), 1e6, per, SIZE), sent())


@pytest.mark.parametrize("per", ["row", "tensor", "upload"])
def test_directions_stay(per: Per) -> None:
    rows = sent().rows["items"].value
    short = clipped(sent(), 0.1, per, SIZE).rows["items"].value

    along = torch.cosine_similarity(rows, short, dim=1)

    assert (along > 1 - 1e-5).all()


def test_a_client_clipped_by_row_moves_a_sum_by_the_root_of_its_rows() -> None:
    """The sensitivity that a clip by row leaves, and that one of uploads bounds."""
    clip = 0.1
    rows = torch.bincount(sent().rows["items"].sender, minlength=CLIENTS)
    rows = 2 * rows + 1 + 6 + 6  # two tables, the users' row, a layer and its bias

    by_row = sum(squared(clipped(sent(), clip, "row", SIZE), SIZE).values())
    whole = sum(squared(clipped(sent(), clip, "upload", SIZE), SIZE).values())

    assert isinstance(by_row, torch.Tensor)
    assert isinstance(whole, torch.Tensor)
    # numbers of the bias that are shorter than the clip may not reach it
    assert (by_row.sqrt() <= clip * rows.sqrt() * (1 + 1e-5)).all()
    assert (by_row.sqrt() >= clip * (rows - 6).sqrt() * (1 - 1e-5)).all()
    assert (whole.sqrt() <= clip * (1 + 1e-5)).all()


@given(st.floats(0.01, 10), st.floats(0.01, 10), st.sampled_from(["row", "upload"]))
def test_units_and_clip_scale_together(clip: float, unit: float, per: Per) -> None:
    size = dict.fromkeys(SIZE, unit)
    one = dict.fromkeys(SIZE, 1.0)

    found = clipped(sent(), clip, per, size)
    expected = clipped(sent(), clip * unit, per, one)

    torch.testing.assert_close(found.rows["items"].value, expected.rows["items"].value)
    torch.testing.assert_close(found.users["users"], expected.users["users"])
