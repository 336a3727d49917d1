"""Ranks and errors against slow twins and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import (
    mean_absolute_error,
    mean_squared_error,
    ndcg_score,
    root_mean_squared_error,
)
from torch import Tensor

from privfed.data.interactions import DataError
from privfed.data.world import Ragged, Shape, World, ragged
from privfed.metrics.utility import (
    draw_candidates,
    full_ranks,
    hit_rate,
    mae,
    mse,
    ndcg,
    rmse,
    sampled_ranks,
)
from privfed.seeds import Seeds

STREAM = Seeds(0)("candidates")


def pairs(clients: int, cells: list[tuple[int, int]]) -> Ragged:
    owner = torch.tensor([c for c, _ in cells], dtype=torch.int64)
    item = torch.tensor([i for _, i in cells], dtype=torch.int64)
    return ragged(clients, owner, item, torch.ones(len(cells)))


def world(clients: int, items: int, cells: list[list[tuple[int, int]]]) -> World:
    train, validation, test = (pairs(clients, part) for part in cells)
    return World("hand-made", Shape(clients, items), train, validation, test)


def busy(clients: int, items: int, share: float) -> World:
    """Everybody met ``share`` of the items, dealt to the three parts in turn."""
    generator = torch.Generator().manual_seed(1)
    met = torch.rand(clients, items, generator=generator) < share
    cells = [(int(c), int(i)) for c, i in met.nonzero()]
    return world(clients, items, [cells[k::3] for k in range(3)])


def met_by(source: World, client: int) -> set[int]:
    parts = (source.train, source.validation, source.test)
    return {
        int(item) for part in parts for item in part.of(torch.tensor([client])).item
    }


@pytest.mark.parametrize("share", [0.0, 0.2, 0.85])
def test_candidates_are_distinct_and_never_met(share: float) -> None:
    source = busy(40, 200, share)
    drawn = draw_candidates(source, 10, STREAM)

    assert drawn.shape == (40, 10)
    for client in range(40):
        row = set(drawn[client].tolist())
        assert len(row) == 10
        assert row <= set(range(200)) - met_by(source, client)


def test_all_unmet_items_are_drawn_when_all_are_needed() -> None:
    source = world(1, 6, [[(0, 1)], [(0, 2)], [(0, 5)]])

    assert draw_candidates(source, 3, STREAM)[0].sort().values.tolist() == [0, 3, 4]


@pytest.mark.parametrize("met", [2, 14])  # by rejection, and by sorting
def test_every_unmet_item_is_as_likely(met: int) -> None:
    clients, items = 4_000, 18
    cells = [(c, i) for c in range(clients) for i in range(met)]
    source = world(clients, items, [cells, [], []])
    drawn = draw_candidates(source, 3, STREAM)
    counts = torch.bincount(drawn.flatten(), minlength=items)[met:]

    assert stats.chisquare(counts.numpy()).pvalue > 1e-4


def test_a_clients_candidates_depend_on_nobody_else() -> None:
    small = world(2, 50, [[(0, 1), (1, 2)], [], []])
    large = world(3, 50, [[(0, 1), (1, 2), (2, 3)], [], [(2, 9)]])

    assert torch.equal(
        draw_candidates(small, 9, STREAM), draw_candidates(large, 9, STREAM)[:2]
    )
    assert not torch.equal(
        draw_candidates(small, 9, STREAM),
        draw_candidates(small, 9, Seeds(1)("candidates")),
    )


def test_too_few_unmet_items_ask_for_full_ranking() -> None:
    source = world(2, 5, [[(1, 0), (1, 1)], [(1, 2)], []])

    with pytest.raises(DataError, match=r"client 1 has 2 items .* full ranking"):
        draw_candidates(source, 3, STREAM)


def test_no_negatives_are_refused() -> None:
    with pytest.raises(ValueError, match="negatives"):
        draw_candidates(busy(2, 5, 0.1), 0, STREAM)


def test_a_tie_counts_against_the_item() -> None:
    others = torch.tensor([[1.0, 2.0, 3.0], [2.0, 2.0, 2.0], [-1.0, 0.0, 1.0]])

    assert sampled_ranks(torch.tensor([2.0, 2.0, 9.0]), others).tolist() == [3, 4, 1]


grids = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed))


@given(grids)
def test_full_ranks_match_a_sort_of_what_competes(rng: np.random.Generator) -> None:
    clients, items = 4, 9
    scores = torch.from_numpy(rng.integers(0, 5, (clients, items)).astype(np.float32))
    part = torch.from_numpy(rng.integers(0, 3, (clients, items)))
    seen, held = (part == 0).nonzero(), (part == 1).nonzero()
    found = full_ranks(scores, (seen[:, 0], seen[:, 1]), (held[:, 0], held[:, 1]))

    for rank, (client, item) in zip(found.tolist(), held.tolist(), strict=True):
        rivals = scores[client][part[client] == 2].tolist()
        worst_first = sorted([*rivals, float(scores[client, item])], reverse=True)
        last = len(worst_first) - worst_first[::-1].index(float(scores[client, item]))
        assert rank == last


def test_full_ranks_leave_the_scores_alone_and_take_one_row_for_all() -> None:
    one = torch.tensor([[3.0, 2.0, 1.0]])
    seen = (torch.tensor([0]), torch.tensor([0]))
    held = (torch.tensor([0, 1]), torch.tensor([1, 1]))

    assert full_ranks(one.expand(2, 3), seen, held).tolist() == [1, 2]
    assert one.tolist() == [[3.0, 2.0, 1.0]]


def test_full_ranks_count_a_score_of_minus_infinity_as_a_score() -> None:
    scores = torch.tensor([[-math.inf, -math.inf, 1.0, 5.0]])
    zero = torch.tensor([0])

    assert full_ranks(scores, (zero, torch.tensor([3])), (zero, zero)).tolist() == [3]


def test_no_held_out_pair_gives_no_rank() -> None:
    none = (torch.arange(0), torch.arange(0))

    assert full_ranks(torch.zeros(2, 3), none, none).shape == (0,)


@pytest.mark.parametrize("where", ["own", "others"])
def test_a_nan_score_is_an_error(where: str) -> None:
    own, others = torch.zeros(1), torch.zeros(1, 2)
    (own if where == "own" else others)[0] = torch.nan
    zero = torch.tensor([0])

    with pytest.raises(ArithmeticError, match="NaN"):
        sampled_ranks(own, others)
    with pytest.raises(ArithmeticError, match="NaN"):
        full_ranks(torch.tensor([[0.0, torch.nan]]), (zero, zero), (zero, zero))


@given(grids, st.integers(1, 12))
def test_ndcg_is_scikit_learns_with_one_held_out_item(
    rng: np.random.Generator, at: int
) -> None:
    scores = rng.permutation(10).astype(float)[None]
    item = int(rng.integers(10))
    relevant = np.zeros((1, 10))
    relevant[0, item] = 1
    none, zero = torch.arange(0), torch.tensor([0])
    rank = full_ranks(
        torch.from_numpy(scores), (none, none), (zero, torch.tensor([item]))
    )

    assert float(ndcg(rank, zero, 1, at)) == pytest.approx(
        ndcg_score(relevant, scores, k=at)
    )


def test_several_held_out_items_average_to_recall() -> None:
    rank = torch.tensor([1, 11, 3, 2])
    owner = torch.tensor([0, 0, 2, 2])
    half = (1 / math.log2(4) + 1 / math.log2(3)) / 2

    assert hit_rate(rank, owner, 3, 10)[[0, 2]].tolist() == [0.5, 1.0]
    assert ndcg(rank, owner, 3, 10)[[0, 2]].tolist() == pytest.approx([0.5, half])
    assert bool(hit_rate(rank, owner, 3, 10)[1].isnan())


def test_a_random_ranker_is_at_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(20_000, 100, generator=generator)
    rank = sampled_ranks(scores[:, 0], scores[:, 1:])
    each = torch.arange(len(rank))

    assert float(hit_rate(rank, each, len(rank), 10).mean()) == pytest.approx(
        0.1, abs=0.008
    )
    assert float(ndcg(rank, each, len(rank), 10).mean()) == pytest.approx(
        0.0454, abs=0.004
    )


def rated() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(50, generator=generator), torch.rand(50, generator=generator)


def test_rating_errors_are_scikit_learns() -> None:
    guess, label = rated()

    assert mae(guess, label) == pytest.approx(mean_absolute_error(label, guess))
    assert mse(guess, label) == pytest.approx(mean_squared_error(label, guess))
    assert rmse(guess, label) == pytest.approx(root_mean_squared_error(label, guess))


def test_rating_errors_refuse_what_cannot_be_compared() -> None:
    guess, label = rated()

    with pytest.raises(ValueError, match="one shape"):
        mae(guess[:-1], label)
    with pytest.raises(ValueError, match="at least one"):
        rmse(guess[:0], label[:0])
    with pytest.raises(ArithmeticError, match="not finite"):
        mse(guess * torch.nan, label)
