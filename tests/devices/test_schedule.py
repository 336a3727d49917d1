"""Steps of a shard in lockstep: who trains when, on which of its samples."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privfed.data.cohort import cohort_of
from privfed.devices.batches import Samples, collect
from privfed.devices.negatives import Negatives
from privfed.devices.schedule import Schedule, schedule
from privfed.seeds import Seeds
from tests.worlds import uneven

SEEDS = Seeds(1)


def planned(counts: list[int], epochs: int, batch: int) -> tuple[Samples, Schedule]:
    of = uneven(counts, 20)
    cohort = cohort_of(of, torch.arange(len(counts)))
    samples = collect(cohort, Negatives(4), SEEDS("negatives"))
    plan = schedule(samples, epochs, batch, SEEDS("shuffle"), torch.float64)
    return samples, plan


@given(
    counts=st.lists(st.integers(0, 12), min_size=1, max_size=5),
    epochs=st.integers(1, 3),
    batch=st.integers(1, 40),
)
@settings(max_examples=30, deadline=None)
def test_a_client_sees_each_sample_once_an_epoch(
    counts: list[int], epochs: int, batch: int
) -> None:
    samples, plan = planned(counts, epochs, batch)

    seen: dict[int, list[tuple[int, float]]] = {c: [] for c in range(len(counts))}
    for step in plan.every:
        item = plan.item[step.row].view(step.active, -1)
        for rank in range(step.active):
            there = step.share[rank] > 0
            client = int(plan.clients[rank])
            assert (plan.sender[step.row].view(step.active, -1)[rank] == client).all()
            batch_of = zip(item[rank, there], step.target[rank, there], strict=True)
            seen[client] += [(int(i), float(y)) for i, y in batch_of]
            assert abs(float(step.share[rank].sum()) - 1) < 1e-12
            assert 0 < int(there.sum()) <= batch

    for client, found in seen.items():
        real = samples.real[client]
        items = samples.item[client][samples.slot[client][real]]
        drawn = [(int(i), float(k == 0)) for row in items for k, i in enumerate(row)]
        size = len(drawn)
        for epoch in range(epochs):
            assert sorted(found[epoch * size :][:size]) == sorted(drawn)
        assert len(found) == epochs * size


@given(
    counts=st.lists(st.integers(0, 12), min_size=1, max_size=5),
    batch=st.integers(1, 40),
)
@settings(max_examples=30, deadline=None)
def test_gradients_of_equal_samples_meet_in_one_place(
    counts: list[int], batch: int
) -> None:
    """Adding up what ``twice`` and ``onto`` say leaves one place to each row."""
    _, plan = planned(counts, 1, batch)

    for step in plan.every:
        there = step.share.flatten() > 0
        slope = there.double()
        slope.index_add_(0, step.onto, slope[step.twice])
        slope[step.twice] = 0
        rows = len(plan.item)
        placed = torch.zeros(rows).double().index_put_((step.place,), slope)
        summed = torch.zeros(rows).double().index_add_(0, step.row, there.double())
        assert torch.equal(placed, summed)


def test_clients_that_train_longest_come_first_and_leave_when_done() -> None:
    _, plan = planned([3, 0, 9, 5], 2, 10)

    assert plan.clients.tolist() == [2, 3, 0, 1]
    assert plan.steps.tolist() == [10, 6, 4, 0]  # two epochs of 45, 25 and 15 samples
    assert [step.active for step in plan.every] == [3] * 4 + [2] * 2 + [1] * 4
    assert [step.number for step in plan.every if step.last] == [3, 5, 9]
