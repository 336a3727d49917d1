"""How recovered ratings are scored."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from privfed.adversary import Prior
from privfed.data.world import World
from privfed.guesses import Ratings
from privfed.methods.fedmf import FedMF
from privfed.metrics.leakage.judged import Judged, Truth
from privfed.metrics.leakage.ratings import judge
from privfed.metrics.score import Score
from privfed.seeds import Seeds
from tests.worlds import world


def stars() -> World:
    """Two clients with three ratings and one, one without."""
    found = world([[0, 1, 2], [], [3]], 5)
    train = replace(found.train, label=torch.tensor([4.0, 2.0, 4.0, 5.0]))
    shape = replace(found.shape, scale=(1.0, 5.0), step=1.0)
    return replace(found, train=train, shape=shape, task="rating")


WORLD = stars()
PRIOR = Prior(WORLD.shape, Seeds(0)("attack"), FedMF())
TRUTH = Truth(WORLD, {}, {}, torch.ones(3, dtype=torch.bool))


def judged(*claims: tuple[int, int, float]) -> Judged:
    """Of (client, item, rating), all three clients being seen."""
    columns = [torch.tensor(column) for column in zip(*claims, strict=True)]
    if not claims:
        columns = [torch.zeros(0, dtype=torch.int64)] * 2 + [torch.zeros(0)]
    return judge(Ratings(torch.arange(3), *columns), TRUTH, PRIOR)


def value(of: Judged, name: str) -> float:
    return of.scores[name].mean()


def test_all_right_is_all_right() -> None:
    found = judged((2, 3, 5.0), (0, 1, 2.0), (0, 0, 4.0), (0, 2, 4.0))

    for name in ("exact", "users_exact", "within_half_star", "coverage", "precision"):
        assert value(found, name) == 1
    assert value(found, "rmse") == value(found, "mae") == 0


def test_figures_by_hand() -> None:
    """One right, one half a star off, one of nothing, one missing."""
    found = judged((0, 0, 4.0), (0, 1, 2.5), (0, 4, 3.0), (2, 3, 2.0))

    assert value(found, "exact") == 1 / 4
    assert value(found, "users_exact") == 0
    assert value(found, "within_half_star") == 2 / 4
    assert value(found, "coverage") == 3 / 4
    assert value(found, "precision") == pytest.approx((2 / 3 + 1) / 2)
    mean = (4 + 2 + 4 + 5) / 4
    squares = [0, 0.25, (mean - 4) ** 2, 9]
    assert value(found, "rmse") == pytest.approx((sum(squares) / 4) ** 0.5)
    assert value(found, "mae") == pytest.approx((0 + 0.5 + 0 + 3) / 4)


def test_the_floor_guesses_one_rating_for_all() -> None:
    floor = judged().floor

    assert floor["exact"].mean() == 2 / 4  # always 4
    assert floor["users_exact"].mean() == 0
    assert floor["rmse"].mean() == pytest.approx(
        float(WORLD.train.label.std(correction=0))
    )
    assert floor["mae"].mean() == (0 + 2 + 0 + 1) / 4
    assert set(floor) == {"exact", "users_exact", "within_half_star", "rmse", "mae"}


def test_claiming_nothing_recovers_nothing_and_errs_as_the_floor_does() -> None:
    found = judged()

    for name in ("exact", "users_exact", "coverage", "precision", "within_half_star"):
        assert value(found, name) == 0
    for name in ("rmse", "mae"):
        assert value(found, name) == found.floor[name].mean()


def test_the_advantage_is_over_clients_with_ratings() -> None:
    gain = judged((0, 0, 4.0), (0, 1, 2.0), (0, 2, 4.0), (2, 3, 5.0)).advantage()

    assert isinstance(gain, Score)
    assert gain.total.tolist() == pytest.approx([1 - 2 / 3, 1.0])


def test_only_clients_that_were_seen_count() -> None:
    guess = Ratings(torch.tensor([2]), *_one(0, 3, 5.0))

    assert judge(guess, TRUTH, PRIOR).scores["exact"].mean() == 1


def test_a_rating_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(ArithmeticError, match="finite"):
        judged((0, 0, float("nan")))


def _one(sender: int, item: int, rating: float) -> tuple[Tensor, Tensor, Tensor]:
    return torch.tensor([sender]), torch.tensor([item]), torch.tensor([rating])
