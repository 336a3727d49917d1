"""Forged from all honest uploads, against dense arithmetic on whole vectors."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from torch import Tensor

from privfed.messages import Uploads, reordered
from privfed.methods.bpr import BPR
from privfed.poisoners.untargeted.inner_product import InnerProductManipulation
from privfed.poisoners.untargeted.little_is_enough import (
    FARTHEST,
    LittleIsEnough,
    z_max,
)
from privfed.poisoners.untargeted.made_up import Degrader
from privfed.poisoners.untargeted.spattack import SpattackOD
from tests.poisoners.plots import plot, sortie
from tests.poisoners.untargeted.sent import (
    ITEMS,
    WIDTH,
    columns,
    sent_by,
    some_uploads,
    total,
    vectors,
)

HONEST, MINE = range(9), (9, 10)
PLOT = plot(BPR(), ITEMS, 9, 2, targets=())


def forged(poisoner: Degrader, honest: Uploads, seed: int = 1) -> Uploads:
    own = some_uploads(MINE, seed=seed, weighted=honest.weight is not None)
    granted = replace(sortie({}, own), honest=honest)
    _, found = poisoner.forge({}, granted, PLOT)
    return found


def table(x: Tensor) -> Tensor:
    """The rows of one long vector, (items, width)."""
    return x[: ITEMS * WIDTH].view(ITEMS, WIDTH)


@pytest.mark.parametrize("z", [-1.5, 0.0, 0.7])
def test_a_little_is_enough_on_whole_vectors(z: float) -> None:
    honest = some_uploads(HONEST)
    found = vectors(forged(LittleIsEnough(z=z, per="upload"), honest))

    x = vectors(honest)
    expected = x.mean(0) - z * x.std(0)
    torch.testing.assert_close(found, expected.expand(2, -1))


@pytest.mark.parametrize("z", [-1.5, 0.7])
def test_a_little_is_enough_among_an_items_senders(z: float) -> None:
    honest = some_uploads(HONEST, share=0.3)
    found = forged(LittleIsEnough(z=z), honest)

    x, senders = vectors(honest), sent_by(honest)
    for item in range(ITEMS):
        who = [k for k in HONEST if item in senders[k]]
        for mine in range(2):
            assert (item in sent_by(found)[mine]) == bool(who)
        if not who:
            continue
        rows = torch.stack([table(x[k])[item] for k in who])
        expected = rows.mean(0) - (z * rows.std(0) if len(who) > 1 else 0.0)
        torch.testing.assert_close(table(vectors(found)[1])[item], expected)


def test_z_from_the_counts_is_each_items_own() -> None:
    honest = some_uploads(HONEST, share=0.4)
    found = forged(LittleIsEnough(), honest)

    senders = sent_by(honest)
    counts = {i: sum(i in one for one in senders) for i in range(ITEMS)}
    fixed = {
        c: forged(LittleIsEnough(z=float(z_max(torch.tensor([c]), 2))), honest)
        for c in set(counts.values())
    }
    for _, item, value in zip(*columns(found), strict=True):
        expected = table(vectors(fixed[counts[item]])[0])[item]
        torch.testing.assert_close(value, expected)


@given(honest=st.integers(1, 200), malicious=st.integers(1, 200))
@settings(max_examples=200, deadline=None)
def test_z_max_is_the_papers_rule(honest: int, malicious: int) -> None:
    clients = honest + malicious
    supporters = clients // 2 + 1 - malicious
    nearer = (clients - malicious - supporters) / (clients - malicious)
    z = float(z_max(torch.tensor([honest]), malicious))

    if supporters <= 0:
        assert z == pytest.approx(FARTHEST)
    else:
        expected = norm.ppf(nearer)
        assert z == pytest.approx(min(max(expected, 0.0), FARTHEST), abs=1e-9)


def test_more_malicious_clients_may_go_farther() -> None:
    assert float(z_max(torch.tensor([26]), 24)) == pytest.approx(1.426, abs=1e-3)
    assert float(z_max(torch.tensor([943]), 47)) == pytest.approx(0.06, abs=5e-3)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_inner_product_of_whole_vectors(factor: float) -> None:
    honest = some_uploads(HONEST)
    poisoner = InnerProductManipulation(factor=factor, per="upload")
    found = vectors(forged(poisoner, honest))

    torch.testing.assert_close(found, (vectors(honest).mean(0) * -factor).expand(2, -1))


def test_inner_product_among_an_items_senders() -> None:
    honest = some_uploads(HONEST, share=0.3)
    found = vectors(forged(InnerProductManipulation(factor=3.0), honest))

    x, senders = vectors(honest), sent_by(honest)
    for item in range(ITEMS):
        rows = [table(x[k])[item] for k in HONEST if item in senders[k]]
        expected = -3 * torch.stack(rows).mean(0) if rows else torch.zeros(WIDTH)
        torch.testing.assert_close(table(found[0])[item], expected)


def test_inner_product_counts_clients_by_their_weights() -> None:
    honest = some_uploads(HONEST, weighted=True)
    assert honest.weight is not None
    found = forged(InnerProductManipulation(factor=2.0, per="upload"), honest)

    sums = total(honest)
    expected = sums.tables["items"] / sums.weight * -2
    torch.testing.assert_close(table(vectors(found)[0]), expected)


@pytest.mark.parametrize("poisoner", [LittleIsEnough(), InnerProductManipulation()])
def test_the_order_of_honest_clients_changes_no_bit(poisoner: Degrader) -> None:
    honest = some_uploads(HONEST)
    mixed = reordered(honest, torch.tensor([4, 2, 8, 0, 1, 7, 3, 6, 5]))

    assert torch.equal(
        vectors(forged(poisoner, honest)), vectors(forged(poisoner, mixed))
    )


@pytest.mark.parametrize("poisoner", [LittleIsEnough(), InnerProductManipulation()])
def test_where_nobody_is_honest_nothing_is_forged(poisoner: Degrader) -> None:
    own = some_uploads(MINE, seed=1)
    for honest in (some_uploads([]), None):
        here = replace(sortie({}, own), honest=honest)
        assert poisoner.forge({}, here, PLOT) == ({}, own)


@pytest.mark.parametrize(
    "poisoner", [LittleIsEnough(), InnerProductManipulation(), SpattackOD()]
)
def test_ordinary_training_does_not_matter(poisoner: Degrader) -> None:
    honest = some_uploads(HONEST)
    one, other = (vectors(forged(poisoner, honest, seed)) for seed in (1, 2))
    assert torch.equal(one, other)
    assert not poisoner.trains


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="z must be"):
        LittleIsEnough(z=float("nan"))
    with pytest.raises(ValueError, match="factor must be positive"):
        InnerProductManipulation(factor=0.0)
    with pytest.raises(ValueError, match="profile must be at least 1"):
        LittleIsEnough(profile=0)
