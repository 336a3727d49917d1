"""The layout of a shard's samples loses nothing and adds nothing."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from privfed.data.cohort import cohort_of
from privfed.devices.batches import LANE, Batch, Samples, bucket, collect, padded
from privfed.devices.negatives import Negatives
from privfed.seeds import Seeds
from tests.worlds import everyone, uneven, world

STREAM = Seeds(3)("batches")


def layout(rule: Negatives | None = None) -> Samples:
    return collect(everyone(uneven()), rule or Negatives(), STREAM)


def told(batch: Batch, client: int) -> Counter[tuple[int, float]]:
    """How much weight a client's batch gives to each (item, label)."""
    found: Counter[tuple[int, float]] = Counter()
    for item, target, weight in zip(
        batch.item[client].tolist(),
        batch.target[client].tolist(),
        batch.weight[client].tolist(),
        strict=True,
    ):
        found[item, 1.0] += round(weight * target)
        found[item, 0.0] += round(weight * (1 - target))
    return +found


def plain(samples: Samples, client: int) -> Counter[tuple[int, float]]:
    """The same, counted sample by sample."""
    slots = samples.slot[client][samples.real[client]].tolist()
    return Counter(
        (int(samples.item[client, slot]), float(k == 0))
        for row in slots
        for k, slot in enumerate(row)
    )


@given(st.integers(1, 5000))
def test_padding_is_enough_and_less_than_a_quarter_over(size: int) -> None:
    room = padded(size)
    assert room >= size
    assert room % LANE == 0
    assert room - size < max(LANE, size / 4)


def test_a_bucket_is_a_function_of_the_count_alone() -> None:
    counts = torch.tensor([3, 0, 8, 9, 100, 3])
    assert torch.equal(bucket(counts), torch.cat([bucket(c[None]) for c in counts]))


@pytest.mark.parametrize("exclude", ["train_only", "nothing"])
def test_the_full_batch_holds_every_sample_once(exclude: str) -> None:
    samples = layout(Negatives(4, "nothing" if exclude == "nothing" else "train_only"))
    batch = samples.full()

    for client in range(8):
        assert told(batch, client) == plain(samples, client)
        size = samples.real[client].sum() * 5
        assert batch.size[client] == size.clamp_min(1)
    assert torch.allclose(batch.share.sum(1), (samples.cohort.counts > 0).float())


@pytest.mark.parametrize("size", [1, 7, 32, 1000])
def test_mini_batches_hold_every_sample_once_an_epoch(size: int) -> None:
    samples = layout()
    for epoch in range(2):
        batches = list(samples.mini(size, STREAM, epoch))
        for client in range(8):
            whole: Counter[tuple[int, float]] = Counter()
            for batch in batches:
                whole += told(batch, client)
            assert whole == plain(samples, client)
            sizes = [int(b.weight[client].sum()) for b in batches]
            assert sizes == sorted(sizes, reverse=True)
            assert all(s in (size, 0) for s in sizes[:-1]) or sizes[0] <= size


def test_epochs_are_shuffled_anew() -> None:
    first, second = (next(layout().mini(16, STREAM, e)) for e in (0, 1))
    assert not torch.equal(first.item, second.item)


def test_the_order_depends_on_the_client_alone() -> None:
    of = uneven()
    together = next(layout().mini(20, STREAM, 3))
    for client in range(8):
        cohort = cohort_of(of, torch.tensor([client]))
        alone = list(collect(cohort, Negatives(), STREAM).mini(20, STREAM, 3))
        if not alone:
            assert not together.weight[client].any()
            continue
        assert torch.equal(alone[0].weight[0], together.weight[client])
        real = alone[0].weight[0] > 0
        assert torch.equal(alone[0].item[0][real], together.item[client][real])
        assert torch.equal(alone[0].target[0][real], together.target[client][real])


def test_rows_hold_each_touched_item_once_in_order() -> None:
    samples = layout()
    for client in range(8):
        rows = samples.item[client][samples.rows[client]]
        assert torch.equal(rows, torch.unique(rows))
        touched = {item for item, _ in plain(samples, client)}
        assert set(rows.tolist()) == touched


def test_clients_without_data_have_no_samples() -> None:
    samples = collect(everyone(world([[], []], 9)), Negatives(), STREAM)

    assert not samples.rows.any()
    assert not samples.full().weight.any()
    assert list(samples.mini(4, STREAM, 0)) == []


def test_batch_rows_gathers_by_slot() -> None:
    table = torch.arange(24.0).view(2, 4, 3)
    slot = torch.tensor([[3, 0], [1, 1]])
    ones = torch.ones(2, 2)
    batch = Batch(slot, ones, ones, ones[:, :1], slot)

    assert torch.equal(
        batch.rows(table), torch.stack([table[0, [3, 0]], table[1, [1, 1]]])
    )
