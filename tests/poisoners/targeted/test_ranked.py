"""The item at a place of a row of scores, against a plain sort."""

import pytest
import torch
from torch import Generator, Tensor

from privfed.poisoners.targeted.ranked import BLOCKS, ranked


def drawn(rows: int, items: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, items, generator=Generator().manual_seed(seed))


def everywhere(rows: int, size: int) -> tuple[Tensor, Tensor]:
    """All places of all rows."""
    row = torch.arange(rows).repeat_interleave(size)
    return row, torch.arange(size).repeat(rows)


@pytest.mark.parametrize("blocks", [1, 2, 27])
@pytest.mark.parametrize("size", [1, 10, BLOCKS, BLOCKS + 1])
def test_places_are_those_of_a_sorted_row(blocks: int, size: int) -> None:
    score = drawn(9, blocks * BLOCKS)
    row, place = everywhere(9, min(size, score.shape[1]))
    order = score.argsort(1, descending=True)
    found = ranked(score, row, place, min(size, score.shape[1]))
    assert torch.equal(found, order[row, place])


def test_best_items_side_by_side_and_far_apart_are_found() -> None:
    score = drawn(2, 20 * BLOCKS).clamp_max(3.0)
    score[0, 5:15] = torch.arange(10, 20).float()
    score[1, 7 :: 2 * BLOCKS] = torch.arange(10, 20).float()
    found = ranked(score, *everywhere(2, 10), 10).view(2, 10)
    assert found[0].tolist() == [*range(14, 4, -1)]
    assert found[1].tolist() == [7 + 2 * BLOCKS * k for k in range(9, -1, -1)]


def test_rows_may_be_asked_for_in_part_and_twice() -> None:
    score = drawn(4, 3 * BLOCKS)
    order = score.argsort(1, descending=True)
    row, place = torch.tensor([1, 1, 3]), torch.tensor([4, 0, 2])
    assert torch.equal(ranked(score, row, place, 5), order[row, place])


@pytest.mark.parametrize("value", [0.0, -torch.inf])
def test_equal_scores_give_some_item_of_that_score(value: float) -> None:
    score = torch.full((3, 2 * BLOCKS), value)
    score[:, 3] = 1.0
    found = ranked(score, *everywhere(3, 10), 10).view(3, 10)
    assert found[:, 0].tolist() == [3, 3, 3]
    assert bool((score[0, found[0, 1:]] == value).all())


def test_items_that_are_hidden_come_last() -> None:
    score = drawn(5, 2 * BLOCKS)
    score[:, 10:] = -torch.inf
    found = ranked(score, *everywhere(5, 10), 10).view(5, 10)
    assert found.sort(1).values.tolist() == [[*range(10)]] * 5
