"""Spattack: what it sends, and what a server makes of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from privfed.messages import Uploads
from privfed.methods.bpr import BPR
from privfed.poisoners.untargeted.made_up import Degrader
from privfed.poisoners.untargeted.spattack import (
    SpattackLD,
    SpattackLS,
    SpattackOD,
    SpattackOS,
    by_popularity,
    most_rows,
)
from tests.poisoners.plots import plot, sortie
from tests.poisoners.untargeted.sent import (
    ITEMS,
    WIDTH,
    sent_by,
    some_uploads,
    total,
    vectors,
)

HONEST, MINE = range(9), (9, 10, 11)
POPULARITY = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0])
PLOT = plot(BPR(), ITEMS, 9, 3, targets=(), popularity=POPULARITY)


def forged(
    poisoner: Degrader, honest: Uploads, own: Uploads | None = None, number: int = 3
) -> Uploads:
    if own is None:
        own = some_uploads(MINE, seed=1, weighted=honest.weight is not None)
    granted = sortie({}, own, number)
    if poisoner.knows.uploads:
        granted = replace(granted, honest=honest)
    _, found = poisoner.forge({}, granted, PLOT)
    return found


@pytest.mark.parametrize("weighted", [False, True])
def test_o_d_leaves_a_server_that_adds_up_with_nothing(weighted: bool) -> None:
    honest = some_uploads(HONEST, weighted=weighted)
    sums = total(honest, forged(SpattackOD(), honest))

    assert total(honest).tables["items"].abs().max() > 1
    nothing = torch.zeros(ITEMS, WIDTH)
    torch.testing.assert_close(sums.tables["items"], nothing, atol=1e-4, rtol=0)
    out = sums.dense["out.weight"]
    torch.testing.assert_close(out, torch.zeros(2, 3), atol=1e-4, rtol=0)


def test_o_d_sends_every_row_on_every_client_alike() -> None:
    honest = some_uploads(HONEST)
    found = forged(SpattackOD(), honest)

    assert sent_by(found) == [set(range(ITEMS))] * 3
    expected = vectors(honest).sum(0) / -3
    torch.testing.assert_close(vectors(found), expected.expand(3, -1))


@pytest.mark.parametrize("weighted", [False, True])
def test_o_s_cancels_the_rows_that_somebody_holds(weighted: bool) -> None:
    honest = some_uploads(HONEST, weighted=weighted)
    found = forged(SpattackOS(rows=4), honest)

    held = sorted(set().union(*sent_by(found)))
    assert all(len(one) == 4 for one in sent_by(found))
    assert 0 not in held  # nobody interacted with it
    sums, before = total(honest, found).tables["items"], total(honest).tables["items"]
    nothing = torch.zeros(len(held), WIDTH)
    torch.testing.assert_close(sums[held], nothing, atol=1e-4, rtol=0)
    left = [i for i in range(ITEMS) if i not in held]
    assert torch.equal(sums[left], before[left])


def test_o_s_sends_no_more_rows_than_honest_clients() -> None:
    honest = some_uploads(HONEST, share=0.3)
    most = max(len(one) for one in sent_by(honest))
    assert most_rows(honest) == most
    assert {len(one) for one in sent_by(forged(SpattackOS(), honest))} == {most}


def test_l_s_sends_no_more_rows_than_its_own_ordinary_uploads() -> None:
    own = some_uploads(MINE, share=0.4, seed=5)
    most = max(len(one) for one in sent_by(own))
    assert {len(one) for one in sent_by(forged(SpattackLS(), own, own))} == {most}


def test_l_is_one_fixed_table_in_units_of_the_gradient() -> None:
    honest = some_uploads(HONEST)
    found = vectors(forged(SpattackLD(), honest))
    rate = honest.scale["items"]

    assert torch.equal(found[0], found[1])
    assert torch.equal(found, vectors(forged(SpattackLD(), honest, number=7)))
    twice = vectors(forged(SpattackLD(deviation=2.0), honest))
    torch.testing.assert_close(twice, found * 2)
    rows, layer = found[0, : ITEMS * WIDTH], found[0, ITEMS * WIDTH :]
    assert 0.7 * rate < rows.std() < 1.3 * rate
    assert not layer.any()


def test_l_s_sends_rows_of_the_same_table() -> None:
    honest = some_uploads(HONEST)
    table = vectors(forged(SpattackLD(), honest))[0, : ITEMS * WIDTH]
    found = forged(SpattackLS(rows=5), honest)

    rows = found.rows["items"]
    assert len(rows.item) == 15
    assert torch.equal(rows.value, table.view(ITEMS, WIDTH)[rows.item])


def test_popular_items_are_drawn_as_numpy_draws_them() -> None:
    """One item after the other, without replacement, by popularity."""
    many = 4000
    here = replace(sortie({}, some_uploads(())), clients=torch.arange(many))
    drawn = by_popularity(here, PLOT, 3)
    share = torch.bincount(drawn.flatten(), minlength=ITEMS) / many

    rng, weight = np.random.default_rng(0), POPULARITY.numpy() / int(POPULARITY.sum())
    theirs = np.concatenate(
        [rng.choice(ITEMS, 3, replace=False, p=weight) for _ in range(many)]
    )
    expected = np.bincount(theirs, minlength=ITEMS) / many
    assert np.abs(share.numpy() - expected).max() < 0.04


def test_rows_are_drawn_once_and_by_client() -> None:
    def drawn(clients: Tensor, size: int) -> Tensor:
        here = replace(sortie({}, some_uploads(())), clients=clients)
        return by_popularity(here, PLOT, size)

    everybody = torch.arange(9, 12)
    rows = drawn(everybody, 6)
    assert torch.equal(drawn(torch.tensor([10]), 6)[0], rows[1])
    assert torch.equal(drawn(everybody, 4), rows[:, :4])
    assert not torch.equal(rows[0].sort().values, rows[1].sort().values)
    assert drawn(everybody, 99).shape == (3, 10)  # two items are nobody's


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="rows must be 0 or more"):
        SpattackOS(rows=-1)
    with pytest.raises(ValueError, match="deviation must be positive"):
        SpattackLD(deviation=0.0)
