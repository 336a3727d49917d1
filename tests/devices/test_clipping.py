"""Whole uploads scaled to a norm, against flat vectors."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from privfed.devices.clipping import Norm, clipped, norms
from privfed.messages import Uploads
from tests.defenses.uploads import CLIENTS, sent, some

SENT = replace(
    sent(), rest={"users": torch.linspace(0.8, 1.0, CLIENTS), "items": torch.ones(10)}
)


def flat(of: Uploads, position: int) -> Tensor:
    """All numbers of one client's upload, end to end."""
    parts = [table.value[table.sender == position] for table in of.rows.values()]
    parts += [value[position] for value in [*of.dense.values(), *of.users.values()]]
    parts += [factor[position] - 1 for factor in of.rest.values()]
    return torch.cat([part.reshape(-1).double() for part in parts])


@pytest.mark.parametrize(("norm", "order"), [("l2", 2), ("l1", 1)])
def test_the_norm_is_that_of_all_tensors_together(norm: Norm, order: int) -> None:
    found = norms(SENT, norm)

    for position in range(CLIENTS):
        expected = float(flat(SENT, position).norm(order))
        assert float(found[position]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("norm", "order"), [("l2", 2), ("l1", 1)])
@given(clip=st.floats(1e-3, 1e3))
def test_clipping_scales_a_whole_upload_and_never_beyond_its_norm(
    norm: Norm, order: int, clip: float
) -> None:
    after = clipped(SENT, clip, norm)

    for position in range(CLIENTS):
        before, now = flat(SENT, position), flat(after, position)
        length = float(before.norm(order))
        scaled = before * min(1.0, clip / length)
        assert float(now.norm(order)) <= clip
        torch.testing.assert_close(now, scaled, rtol=1e-3, atol=1e-6)


def test_what_lies_within_the_clip_is_left_alone() -> None:
    after = clipped(SENT, 1e6)

    assert torch.equal(after.rows["items"].value, SENT.rows["items"].value)
    assert torch.equal(after.dense["layer.bias"], SENT.dense["layer.bias"])
    assert torch.equal(after.users["users"], SENT.users["users"])


def test_every_client_counts_one() -> None:
    assert SENT.weight is not None
    assert clipped(SENT, 1.0).weight is None


def test_a_decay_factor_moves_towards_one() -> None:
    far = Uploads(torch.arange(2), rest={"items": torch.tensor([0.5, 0.999])})

    after = clipped(far, 0.1).rest["items"]

    assert after.tolist() == pytest.approx([0.9, 0.999], abs=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_upload_that_is_not_finite_becomes_zero(bad: float) -> None:
    layer = SENT.dense["layer.bias"].clone()
    layer[3, 1] = bad
    after = clipped(replace(SENT, dense={**SENT.dense, "layer.bias": layer}), 1.0)

    assert not flat(after, 3).any()
    assert float(flat(after, 4).norm()) == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("size", [1, 3])
def test_a_shard_changes_no_bit(size: int) -> None:
    whole = clipped(SENT, 0.5)
    for at in torch.split(torch.arange(CLIENTS), size):
        part = replace(
            some(SENT, at.tolist()), rest={n: v[at] for n, v in SENT.rest.items()}
        )
        after = clipped(part, 0.5)
        for k, position in enumerate(at.tolist()):
            assert torch.equal(flat(after, k), flat(whole, position))


def test_clipping_row_by_row_bounds_no_client() -> None:
    """What goes wrong where each row, not the upload, is cut to the clip."""
    rows = SENT.rows["items"]
    each = rows.value / rows.value.norm(dim=1, keepdim=True)
    by_row = replace(SENT, rows={"items": replace(rows, value=each)}, dense={})

    most = int(torch.bincount(rows.sender).max())
    assert float(norms(replace(by_row, users={}, rest={})).max()) == pytest.approx(
        most**0.5, rel=1e-6
    )
