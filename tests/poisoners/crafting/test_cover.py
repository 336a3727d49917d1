"""Made-up interactions around the targets."""

import pytest
import torch

from privfed.errors import SettingsError
from privfed.methods.bpr import BPR
from privfed.poisoners.crafting.cover import cover
from tests.poisoners.plots import plot


def test_every_client_takes_the_targets_and_distinct_fillers() -> None:
    pairs = cover(plot(BPR(), targets=(4, 9), malicious=7), None, 6)

    assert pairs.sender.tolist() == [k for k in range(7) for _ in range(8)]
    taken = pairs.item.view(7, 8)
    for row in taken.tolist():
        assert {4, 9} < set(row)
        assert len(set(row)) == 8
    assert len({tuple(row) for row in taken.tolist()}) > 1
    assert pairs.context.shape == (56, 0)
    assert pairs.label.tolist() == [1.0] * 56


def test_fillers_come_from_the_pool_and_targets_are_none() -> None:
    pairs = cover(plot(BPR(), targets=(4,)), torch.tensor([4, 5, 6, 6]), 2)

    assert pairs.item.view(3, 3).tolist() == [[4, 5, 6]] * 3


def test_a_client_draws_the_same_whoever_else_there_is() -> None:
    few = cover(plot(BPR(), malicious=2), None, 5).item.view(2, -1)
    many = cover(plot(BPR(), malicious=6), None, 5).item.view(6, -1)

    assert torch.equal(few, many[:2])


def test_without_targets_there_are_fillers_alone() -> None:
    pairs = cover(plot(BPR(), targets=()), None, 4)

    assert len(pairs.item) == 12


@pytest.mark.parametrize("size", [-1, 3])
def test_too_few_fillers_are_refused(size: int) -> None:
    with pytest.raises(SettingsError, match="of 2 filler items; lower"):
        cover(plot(BPR()), torch.tensor([4, 5, 6]), size)
