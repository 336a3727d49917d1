"""The server's steps on clusters, against loops over users and items."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from privfed.errors import PrivfedError
from privfed.messages import Rows
from privfed.methods.neural.clusters import (
    Norm,
    by_change,
    calibrated,
    cluster_change,
    delegates,
    partition,
    shares,
    spread,
)
from privfed.seeds import Seeds

STREAM = Seeds(3)("server")
NORMS: tuple[Norm, ...] = ("l1", "l2", "elementwise")
SEED = st.integers(0, 1000)


def some(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=Generator().manual_seed(seed))


def below(high: int, count: int, seed: int = 0) -> Tensor:
    return torch.randint(high, (count,), generator=Generator().manual_seed(seed))


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


# ClusSamp


def by_turns(cluster: Tensor, able: Tensor, count: int, keys: Tensor) -> list[int]:
    """Clusters take turns; each sends the waiting client with the least key."""
    waiting = sorted(able.tolist(), key=lambda u: int(keys[u]))
    chosen: list[int] = []
    while waiting and len(chosen) < count:
        served: set[int] = set()
        for user in list(waiting):  # one pass: the first of every cluster
            if int(cluster[user]) in served or len(chosen) == count:
                continue
            served.add(int(cluster[user]))
            chosen.append(user)
            waiting.remove(user)
    return sorted(chosen)


@given(SEED, st.integers(1, 40), st.integers(1, 6), st.integers(1, 50))
def test_delegates_are_taken_in_turn_from_every_cluster(
    seed: int, clients: int, clusters: int, count: int
) -> None:
    cluster = below(clusters, clients, seed)
    able = torch.arange(clients)[below(4, clients, seed + 1) > 0]
    every = torch.arange(clients)
    keys = STREAM.bits(every, torch.zeros_like(every))

    found = delegates(cluster, able, count, STREAM)

    assert found.tolist() == by_turns(cluster, able, count, keys)
    assert len(found) == min(count, len(able))


def test_equal_clusters_send_equally_many_and_all_get_a_turn_over_rounds() -> None:
    cluster = torch.arange(60) % 5
    met = torch.zeros(60, dtype=torch.bool)
    for number in range(30):
        stream = Seeds(0)("cohort", number)
        found = delegates(cluster, torch.arange(60), 20, stream)
        assert torch.bincount(cluster[found]).tolist() == [4] * 5
        met[found] = True
    assert met.all()


# CaliUp


def clusters_of_three() -> tuple[Tensor, Tensor, Tensor]:
    """Changes, weights and clusters of 7 delegates; cluster 2 of 4 sends none."""
    return some(7, 5), below(9, 7).float() + 1, torch.tensor([0, 0, 1, 3, 3, 3, 1])


def test_a_clusters_change_is_the_weighted_mean_of_its_delegates() -> None:
    change, weight, cluster = clusters_of_three()

    found = cluster_change(change, weight, cluster, 4)

    for p in range(4):
        mine = [k for k in range(7) if cluster[k] == p]
        total = sum(float(weight[k]) for k in mine)
        expected = torch.zeros(5)
        for k in mine:
            expected += weight[k] / total * change[k]
        close(found[p], expected)
    assert not found[2].any()


@pytest.mark.parametrize("pull", [0.0, 0.1, 0.7])
def test_calibration_is_the_papers_step_while_the_shared_head_is_far(
    pull: float,
) -> None:
    heads, shared, change = some(4, 6), some(6, seed=1) + 9, 0.3 * some(4, 6, seed=2)

    found = calibrated(heads, change, shared, pull)

    for p in range(4):
        gradient, apart = -change[p], heads[p] - shared
        step = gradient + pull * gradient.norm() * apart / apart.norm()
        close(found[p], heads[p] - step)


@given(SEED, st.floats(1e3, 1e6))
def test_a_huge_pull_starts_every_head_from_the_shared_one(
    seed: int, pull: float
) -> None:
    heads, shared, change = some(3, 4, seed=seed), some(4, seed=seed + 1), some(3, 4)

    close(calibrated(heads, change, shared, pull), shared + change)


def test_a_head_at_the_shared_one_and_one_without_delegates_are_not_pulled() -> None:
    heads = some(2, 3)
    change = torch.stack([torch.ones(3), torch.zeros(3)])

    found = calibrated(heads, change, heads[0], 0.5)

    assert torch.equal(found, heads + change)


@given(SEED, st.floats(0, 5), st.floats(0, 5))
def test_more_pull_ends_nearer_the_shared_head(
    seed: int, one: float, other: float
) -> None:
    heads, shared, change = some(3, 4, seed=seed), some(4, seed=seed + 1), some(3, 4)
    less, more = sorted([one, other])

    def left(pull: float) -> Tensor:
        found = calibrated(heads, change, shared, pull) - change - shared
        return found.square().sum(1).sqrt()

    assert (left(more) <= left(less) + 1e-5).all()


# FastAgg


@pytest.mark.parametrize("discount", [0.0, 0.5, 1.0])
def test_delegates_keep_their_rows_and_subordinates_follow_the_mean(
    discount: float,
) -> None:
    users, cluster = some(9, 4), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 3])
    clients, change = torch.tensor([0, 3, 4]), some(3, 4, seed=1)

    found = spread(users, clients, change, cluster, discount)

    for user in range(9):
        if user in clients:
            close(found[user], users[user] + change[clients == user][0])
            continue
        mates = [k for k, d in enumerate(clients) if cluster[d] == cluster[user]]
        expected = users[user].clone()
        if mates:
            mean = sum((change[k] for k in mates), torch.zeros(4)) / len(mates)
            expected += discount * mean
        close(found[user], expected)


def sent(seed: int = 0) -> Rows:
    """Rows of three delegates for six items; nobody sends item 5."""
    sender = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
    item = torch.tensor([0, 1, 2, 0, 3, 0, 2, 4])
    return Rows(sender, item, some(8, 3, seed=seed))


@pytest.mark.parametrize("norm", NORMS)
def test_item_rows_are_averaged_by_how_far_they_moved(norm: Norm) -> None:
    table, rows = some(6, 3, seed=5), sent()

    found = by_change(table, rows, norm)

    for item in range(6):
        for c in range(3):
            above = below = 0.0
            for k in range(8):
                if rows.item[k] != item:
                    continue
                change = rows.value[k]
                theta = {
                    "l1": float(change.abs().sum()),
                    "l2": float(change.norm()),
                    "elementwise": float(change[c].abs()),
                }[norm]
                above += theta * float(table[item, c] + change[c])
                below += theta
            expected = above / below if below else float(table[item, c])
            assert float(found[item, c]) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert torch.equal(found[5], table[5])


@given(SEED, st.integers(1, 6), st.sampled_from(NORMS))
def test_equal_uploads_come_out_as_they_are(seed: int, count: int, norm: Norm) -> None:
    table, one = some(6, 3), some(4, 3, seed=seed)
    rows = Rows(
        torch.arange(count).repeat_interleave(4),
        torch.arange(4).repeat(count),
        one.repeat(count, 1),
    )

    found = by_change(table, rows, norm)

    close(found[:4], table[:4] + one)
    assert torch.equal(found[4:], table[4:])


def test_rows_that_were_sent_and_did_not_move_stay() -> None:
    table = some(3, 2)
    rows = Rows(torch.tensor([0]), torch.tensor([1]), torch.zeros(1, 2))

    assert torch.equal(by_change(table, rows, "elementwise"), table)


# Re-partition and ClusAvg


@given(SEED, st.integers(1, 30), st.integers(1, 5))
def test_the_shares_of_new_clusters_are_counted_by_weight_and_sum_to_one(
    seed: int, clients: int, clusters: int
) -> None:
    before, after = below(clusters, clients, seed), below(clusters, clients, seed + 1)
    weight = below(9, clients, seed + 2).float() + 1

    found = shares(before, after, weight, clusters)

    close(found.sum(1), torch.ones(clusters, dtype=torch.float64))
    for q in range(clusters):
        members = [u for u in range(clients) if after[u] == q]
        for p in range(clusters):
            came = sum(float(weight[u]) for u in members if before[u] == p)
            total = sum(float(weight[u]) for u in members)
            expected = came / total if members else float(p == q)
            assert float(found[q, p]) == pytest.approx(expected)


def islands(clusters: int = 4, each: int = 10) -> tuple[Tensor, Tensor]:
    """Points around far-off centers, and which center each has."""
    truth = torch.arange(clusters).repeat_interleave(each)
    return 50 * some(clusters, 3, seed=4)[truth] + 0.1 * some(len(truth), 3), truth


def test_partition_finds_islands() -> None:
    points, truth = islands()

    found = partition(points, 4, STREAM)

    together = truth[:, None] == truth
    assert torch.equal(found[:, None] == found, together)


def test_a_partition_that_still_fits_keeps_its_numbers() -> None:
    points, truth = islands()
    numbered = torch.tensor([2, 0, 3, 1])[truth]

    moved = partition(points + 0.1, 4, STREAM, numbered)

    assert torch.equal(moved, numbered)
    assert torch.equal(partition(points, 4, STREAM), partition(points, 4, STREAM))


def test_a_partition_with_an_empty_cluster_is_begun_anew() -> None:
    points, truth = islands()
    merged = truth.clamp(max=2)

    assert len(set(partition(points, 4, STREAM, merged).tolist())) == 4


def test_rows_that_are_not_finite_are_an_error_that_says_so() -> None:
    points = some(5, 2)
    points[3, 1] = torch.nan

    with pytest.raises(PrivfedError, match="diverged"):
        partition(points, 2, STREAM)
