"""Rows left out at random."""

import pytest
import torch

from privfed.defenses.row_dropout import RowDropout
from tests.defenses.uploads import TURN, sent, turn


def place(table: str, share: float, number: int = 3) -> torch.Tensor:
    rows = RowDropout(share).on_upload(sent(), turn(number)).rows[table]
    return rows.sender * 50 + rows.item


def test_what_is_left_is_as_it_was_in_every_table_alike() -> None:
    after = RowDropout(0.4).on_upload(sent(), TURN)
    for name, rows in sent().rows.items():
        left = torch.isin(rows.sender * 50 + rows.item, place("items", 0.4))
        assert torch.equal(after.rows[name].value, rows.value[left])
        assert torch.equal(after.rows[name].item, rows.item[left])
    assert torch.equal(after.dense["layer.bias"], sent().dense["layer.bias"])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_share_is_the_chance_of_each_row(share: float) -> None:
    before = sent().rows["items"]
    times = torch.zeros(10 * 50)
    for k in range(200):
        times[place("items", share, k)] += 1
    counts = times[before.sender * 50 + before.item]

    deviation = (200 * share * (1 - share)) ** 0.5

    assert ((counts - 200 * (1 - share)).abs() < 5 * deviation).all()


def test_over_rounds_every_row_comes_up() -> None:
    seen = set(torch.cat([place("items", 0.5, k) for k in range(40)]).tolist())
    assert len(seen) == len(sent().rows["items"].item)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_an_unusable_share_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        RowDropout(share)
