"""An upload as one vector: whatever sum comes out is the plain channel's total."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from privfed.channels.layout import Bounds, Layout, layout_of
from privfed.channels.plain import Plain
from privfed.data.world import Shape
from privfed.errors import PrivfedError, SettingsError
from privfed.interfaces import Opening
from privfed.messages import Total, Uploads
from privfed.seeds import Seeds
from tests.channels.test_plain import SHAPE, some, uploads

BOUNDS = Bounds(number=8.0, weight=64.0)
CAPACITY = 2**31 - 1


def opening(clients: Tensor, shape: Shape = SHAPE) -> Opening:
    return Opening(0, shape, clients, Seeds(0)("channel"))


def layout(of: Uploads, capacity: int = CAPACITY) -> Layout:
    return layout_of(of, opening(of.clients), BOUNDS, capacity)


def plain(of: Uploads) -> Total:
    channel = Plain()
    opened, _ = channel.send(channel.open(opening(of.clients)), of)
    return channel.close(opened).total


def tensors(total: Total) -> Mapping[tuple[str, str], Tensor]:
    """All tensors of a total by kind and name."""
    kinds = ("tables", "senders", "dense", "users", "rest")
    return {(k, n): v for k in kinds for n, v in getattr(total, k).items()}


@given(seed=st.integers(0, 200), clients=st.integers(1, 12), weighted=st.booleans())
def test_the_sum_of_vectors_is_the_plain_total(
    seed: int, clients: int, weighted: bool
) -> None:
    sent = uploads(seed, clients, weighted)
    flat = layout(sent)
    largest = max(s.encoding.step for s in flat.segments)

    found = flat.unpack(flat.pack(sent).sum(0), clients)

    expected = plain(sent)
    assert found.weight == expected.weight
    assert found.clients == expected.clients
    assert tensors(found).keys() == tensors(expected).keys()
    for key, value in tensors(expected).items():
        other = tensors(found)[key]
        assert other.dtype == value.dtype
        torch.testing.assert_close(
            other, value, rtol=1e-5, atol=1e-4 + clients * largest
        )
    for name in expected.senders:
        assert torch.equal(found.senders[name], expected.senders[name])


@given(seed=st.integers(0, 200), weighted=st.booleans(), cut=st.integers(1, 9))
def test_shards_do_not_change_a_vector(seed: int, weighted: bool, cut: int) -> None:
    sent = uploads(seed, 10, weighted)
    flat = layout(sent)

    parts = [flat.pack(some(sent, part)) for part in (range(cut), range(cut, 10))]

    assert torch.equal(torch.cat(parts), flat.pack(sent))


def test_every_shard_gives_the_same_layout() -> None:
    sent = uploads(1, 10, True)
    whole = layout_of(sent, opening(sent.clients), BOUNDS, CAPACITY)
    part = layout_of(some(sent, [3]), opening(sent.clients), BOUNDS, CAPACITY)

    assert part.segments == whole.segments
    assert torch.equal(part.clients, whole.clients)


@given(seed=st.integers(0, 50))
def test_a_client_touches_its_own_rows_of_users_only(seed: int) -> None:
    sent = uploads(seed, 6, False)
    flat = layout(sent)
    vectors = flat.pack(sent)

    for k, position in enumerate(flat.positions(sent.clients).tolist()):
        mine = torch.zeros(flat.length, dtype=torch.bool)
        mine[: flat.shared] = True
        for start, stop in flat.own(position):
            mine[start:stop] = True
        assert not vectors[k][~mine].any()


def test_no_sum_exceeds_the_capacity() -> None:
    sent = uploads(0, 9, True)
    most = replace(
        sent,
        weight=torch.full((9,), BOUNDS.weight),
        rows={
            n: replace(r, value=torch.full_like(r.value, BOUNDS.number))
            for n, r in sent.rows.items()
        },
    )
    for capacity in (10_000, CAPACITY, 2**51):
        flat = layout(most, capacity)
        assert int(flat.pack(most).sum(0).abs().max()) <= capacity


def test_packing_changes_no_upload() -> None:
    sent, same = uploads(4, 6, True), uploads(4, 6, True)
    layout(sent).pack(sent)

    assert torch.equal(sent.rows["items"].value, same.rows["items"].value)
    assert torch.equal(sent.dense["layer.weight"], same.dense["layer.weight"])


def test_a_number_over_its_bound_is_refused_with_the_mend() -> None:
    sent = uploads(0, 5, False)
    sent.dense["layer.bias"][2, 1] = -20.0
    with pytest.raises(SettingsError, match=r"20 in layer.bias .*bound=32"):
        layout(sent).pack(sent)


def test_a_bound_counts_in_units_of_a_tensor_s_scale() -> None:
    """A step of 20 at a learning rate of 4 is a gradient of 5, which fits 8."""
    sent = uploads(0, 5, False)
    sent.dense["layer.bias"][2, 1] = -20.0
    known = replace(sent, scale={"layer.bias": 4.0})

    found = layout(known).unpack(layout(known).pack(known).sum(0), 5)

    torch.testing.assert_close(
        found.dense["layer.bias"], plain(known).dense["layer.bias"]
    )


def test_a_weight_over_its_bound_is_refused_with_the_mend() -> None:
    sent = uploads(0, 5, True)
    assert sent.weight is not None
    sent.weight[2] = 65.0
    with pytest.raises(SettingsError, match=r"65.*largest_weight=128"):
        layout(sent).pack(sent)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused(value: float) -> None:
    sent = uploads(0, 5, True)
    sent.rows["items"].value[0, 0] = value
    with pytest.raises(PrivfedError, match="not finite"):
        layout(sent).pack(sent)


def test_a_stranger_is_refused() -> None:
    sent = uploads(0, 5, True)
    flat = layout(sent)
    for stranger in (-1, 100):
        with pytest.raises(PrivfedError, match="outside of the cohort"):
            flat.positions(torch.tensor([stranger]))


def test_a_sum_of_fewer_uploads_than_claimed_is_refused() -> None:
    sent = uploads(0, 6, True)
    flat = layout(sent)
    vectors = flat.pack(sent)

    with pytest.raises(PrivfedError, match="holds 5 uploads where 6"):
        flat.unpack(vectors[1:].sum(0), 6)
    with pytest.raises(PrivfedError, match="5 uploads"):
        flat.unpack(vectors.sum(0), 5)


def test_a_sum_of_nonsense_is_refused() -> None:
    sent = uploads(0, 6, True)
    flat = layout(sent)
    nonsense = torch.randint(-(2**40), 2**40, (flat.length,))

    with pytest.raises(PrivfedError, match="outside of what"):
        flat.unpack(nonsense, 6)


def test_noise_within_what_is_told_changes_little() -> None:
    sent = uploads(0, 6, True)
    flat = layout(sent, 2**51)
    sums = flat.pack(sent).sum(0)

    exact = flat.unpack(sums, 6)
    noisy = flat.unpack(sums + 2**20, 6, noise=2**20)

    assert torch.equal(exact.senders["items"], noisy.senders["items"])
    torch.testing.assert_close(exact.tables["items"], noisy.tables["items"])
