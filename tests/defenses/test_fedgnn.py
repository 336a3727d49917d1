"""FedGNN's pseudo items and Laplace noise."""

from dataclasses import replace
from typing import Literal

import pytest
import torch
from scipy.stats import kstest, laplace

from privfed.data.world import Shape
from privfed.defenses import fedgnn
from privfed.defenses.fedgnn import FedGNN
from privfed.interfaces import Turn
from privfed.messages import Rows, Uploads
from privfed.seeds import Seeds
from tests.defenses.uploads import CLIENTS, TURN, is_scale, sent, turn

Spread = Literal["full", "diagonal"]
BARE = FedGNN(pseudo=20, clip=None, noise=0.0)


def pseudo(before: Rows, after: Rows) -> Rows:
    """The rows that were added."""
    known = torch.isin(after.sender * 50 + after.item, before.sender * 50 + before.item)
    return Rows(after.sender[~known], after.item[~known], after.value[~known])


@pytest.mark.parametrize("spread", ["full", "diagonal"])
def test_real_rows_stay_and_as_many_pseudo_rows_as_asked_come(spread: Spread) -> None:
    before = sent().rows["items"]
    after = replace(BARE, spread=spread).on_upload(sent(), TURN).rows["items"]

    made = pseudo(before, after)
    real = torch.bincount(before.sender, minlength=CLIENTS)

    assert torch.equal(
        torch.bincount(made.sender, minlength=CLIENTS), (50 - real).clamp_max(20)
    )
    at = torch.isin(after.sender * 50 + after.item, before.sender * 50 + before.item)
    assert torch.equal(after.value[at], before.value)
    assert made.value[made.sender > 3].any(1).all()


def test_both_tables_have_the_same_pseudo_items_with_other_rows() -> None:
    after = BARE.on_upload(sent(), TURN)
    one, other = after.rows["items"], after.rows["items_mlp"]

    assert torch.equal(one.item, other.item)
    assert torch.equal(one.sender, other.sender)
    assert other.value.shape[1] == 5


def test_every_item_is_drawn_alike_often() -> None:
    counts = torch.zeros(50)
    for k in range(200):
        rows = BARE.on_upload(sent(), turn(k)).rows["items"]
        counts += torch.bincount(rows.item[rows.sender == 0], minlength=50)

    assert counts.sum() == 200 * 20  # client 0 sends no row of its own
    assert ((counts - 80).abs() < 5 * (80 * 0.6) ** 0.5).all()


def alone(rows: torch.Tensor) -> Uploads:
    """One client that sends some rows."""
    count = len(rows)
    table = Rows(torch.zeros(count, dtype=torch.int64), torch.arange(count), rows)
    return Uploads(torch.tensor([3]), {"items": table}, scale={"items": 1.0})


@pytest.mark.parametrize("spread", ["full", "diagonal"])
def test_pseudo_rows_have_mean_and_covariance_of_the_real_ones(spread: Spread) -> None:
    rng = torch.Generator().manual_seed(1)
    mix = torch.randn(3, 4, generator=rng)  # rows lie in three dimensions of four
    rows = torch.randn(37, 3, generator=rng) @ mix + torch.tensor([1.0, 0, -2, 0.5])
    shape = Shape(10, 8000)
    defense = FedGNN(7000, spread, None, noise=0.0)

    after = defense.on_upload(alone(rows), Turn(0, shape, Seeds(1)("x")))
    made = after.rows["items"].value[37:]
    found, expected = torch.cov(made.T), torch.cov(rows.T, correction=0)
    if spread == "diagonal":
        expected = expected.diag().diag()

    size = expected.diag().sqrt()
    error = 5 * (size[:, None] * size) * (2 / 7000) ** 0.5
    assert ((found - expected).abs() < error).all()
    assert ((made.mean(0) - rows.mean(0)).abs() < 5 * size / 7000**0.5).all()
    assert not ((found * 9 / 4 - expected).abs() < error).all()
    assert not ((found * 4 / 9 - expected).abs() < error).all()


def test_full_covariance_keeps_pseudo_rows_on_the_axis_of_the_real_ones() -> None:
    """One direction a client: what tells real rows from those drawn by dimension."""
    axis = torch.nn.functional.normalize(torch.arange(1.0, 9.0), dim=0)
    rows = torch.linspace(-1, 1, 20)[:, None] * axis

    def along(spread: Spread) -> torch.Tensor:
        defense = FedGNN(30, spread, None, noise=0.0)
        after = defense.on_upload(alone(rows), TURN).rows["items"].value[20:]
        return (torch.nn.functional.normalize(after, dim=1) @ axis).abs()

    assert (along("full") > 1 - 1e-5).all()
    assert along("diagonal").median() < 0.8


def test_noise_is_laplace_of_the_scale_asked_for() -> None:
    defense = FedGNN(0, clip=None, noise=0.3)
    before = replace(
        sent(),
        rows={},
        dense={"layer.weight": torch.zeros(CLIENTS, 40, 40)},
        users={},
    )
    drawn = defense.on_upload(before, TURN).dense["layer.weight"].flatten()

    def fits(scale: float) -> bool:
        return bool(kstest(drawn.numpy(), laplace(0, scale).cdf).pvalue > 1e-4)

    assert fits(0.3 * 0.1)
    assert not fits(0.3 * 0.1 * 1.5)
    assert not fits(0.3 * 0.1 / 1.5)
    assert is_scale(drawn.std().item(), 0.03 * 2**0.5, len(drawn), kurtosis=6)


def test_rows_are_noised_in_units_of_the_gradient() -> None:
    defense = FedGNN(0, clip=None, noise=0.2)
    before, after = sent(), defense.on_upload(sent(), TURN)

    for name in ("items", "items_mlp"):
        added = after.rows[name].value - before.rows[name].value
        scale = 0.2 * 2**0.5 * before.scale[name]
        assert is_scale(added.std().item(), scale, added.numel(), kurtosis=6)
        assert not is_scale(added.std().item(), scale * 1.5, added.numel(), 6)
        assert not is_scale(added.std().item(), scale / 1.5, added.numel(), 6)
    users = after.users["users"] - before.users["users"]
    assert users.all()


def test_pseudo_rows_are_clipped_with_the_real_ones() -> None:
    defense = FedGNN(20, clip=0.1, noise=0.0)
    after = defense.on_upload(sent(), TURN).rows["items"]

    squares = torch.zeros(CLIENTS).index_add_(
        0, after.sender, (after.value / 5).square().sum(1)
    )

    assert (squares.sqrt() <= 0.1 * (1 + 1e-5)).all()
    assert squares[4:].sqrt() == pytest.approx(torch.full((6,), 0.1), rel=1e-4)


def test_more_pseudo_items_than_there_are_make_every_row() -> None:
    rows = FedGNN().on_upload(sent(), TURN).rows["items"]

    assert torch.equal(rows.item, torch.arange(50).repeat(CLIENTS))
    assert FedGNN().sends_every_row()
    assert not FedGNN(0).sends_every_row()


def test_groups_of_clients_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    together = BARE.on_upload(sent(), TURN).rows["items"].value
    monkeypatch.setattr(fedgnn, "_TOGETHER", 1)

    assert torch.equal(BARE.on_upload(sent(), TURN).rows["items"].value, together)


def test_the_papers_epsilon_is_named_and_refuted() -> None:
    told = FedGNN().guarantee()

    assert told.epsilon is None
    assert "the papers would call this epsilon 1:" in told.sentence()
    assert "L1 norm" in told.sentence()
    assert "which rows are sent differs" in told.sentence()
    assert "the papers" not in FedGNN(noise=0.0).guarantee().sentence()


def test_unusable_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="pseudo must be 0 or more"):
        FedGNN(pseudo=-1)
    with pytest.raises(ValueError, match="noise must be 0 or more"):
        FedGNN(noise=-1)
    with pytest.raises(ValueError, match="clip must be positive"):
        FedGNN(clip=0)
