"""One upload tells ratings that are known to lie on a grid."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator

from privfed.attacks.ratings.one_round import RatingGrid
from privfed.attacks.reading.grid import Grid, fitted
from privfed.attacks.reading.rank_one import Lines
from privfed.defenses.gaussian import Gaussian
from privfed.messages import Uploads
from privfed.methods.fedmf import FedMF
from privfed.methods.fedrec import FedRec
from privfed.views import ServerView
from tests.attacks.rated import all_right, claimed, share_right, shown, table
from tests.attacks.rated import truth as ratings_of
from tests.attacks.ratings.test_two_rounds import BASE, FORMS, HALVES, WORLD, name

ATTACK = RatingGrid()


@pytest.mark.parametrize("method", FORMS, ids=name)
def test_one_upload_tells_every_rating_exactly(method: FedMF) -> None:
    for world in (WORLD, HALVES):
        found = claimed(ATTACK, method, world, shown(method, world, 1))

        assert all_right(found, world)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 5), st.floats(0.05, 0.9))
def test_the_length_is_found_and_so_is_a_factor(
    seed: int, s: float, factor: float
) -> None:
    """Ratings 1 to 5 with all five among them: no other scale fits."""
    rng = Generator().manual_seed(seed)
    rating = torch.randint(1, 6, (60,), generator=rng).double()
    second = torch.randn(60, generator=rng).double()
    first = (rating - s * second) * s
    sender, noise = torch.zeros(60, dtype=torch.int64), torch.full((1,), 1e-9).double()
    grid = Grid(1.0, 5.0, 1.0)

    tied = fitted(Lines(first, second), sender, noise, grid, two=False)
    free = fitted(Lines(first * factor, second), sender, noise, grid)

    assert abs(float(tied.second)) == pytest.approx(s, rel=1e-6)
    lines = Lines(first * factor, second)
    torch.testing.assert_close(free.at(lines, sender), rating, atol=1e-6, rtol=0)


def test_an_upload_that_was_shortened_is_read_all_the_same() -> None:
    defense = Gaussian(variance=0.0, clip=0.05, per="upload")
    found = claimed(ATTACK, BASE, WORLD, shown(BASE, WORLD, 1, defense), [defense])

    assert share_right(found, WORLD) > 0.99


@pytest.mark.parametrize("steps", [2, 5, 10])
def test_several_local_steps_protect_little(steps: int) -> None:
    method = replace(BASE, local_steps=steps)

    assert (
        share_right(claimed(ATTACK, method, WORLD, shown(method, WORLD, 1)), WORLD)
        > 0.95
    )


def test_noise_averages_out_over_rounds() -> None:
    method = replace(BASE, learning_rate=1e-4)
    defense = Gaussian(variance=0.4**2, rows="touched")
    one, many = (
        share_right(
            claimed(ATTACK, method, WORLD, shown(method, WORLD, r, defense), [defense]),
            WORLD,
        )
        for r in (1, 20)
    )
    assert many > one


def test_without_a_grid_nothing_is_claimed() -> None:
    bare = replace(WORLD, shape=replace(WORLD.shape, step=0.0))

    assert not len(claimed(ATTACK, BASE, bare, shown(BASE, bare, 2)).rating)


def test_noise_alone_is_not_taken_for_ratings() -> None:
    def drown(up: Uploads) -> Uploads:
        rows = up.rows["items"]
        rng = Generator().manual_seed(int(up.clients.sum()))
        noise = torch.randn(rows.value.shape, generator=rng)
        return replace(up, rows={"items": replace(rows, value=noise)})

    views = shown(BASE, WORLD, 2, change=drown)

    assert len(claimed(ATTACK, BASE, WORLD, views).rating) < 0.05 * len(
        WORLD.train.item
    )


def test_virtual_ratings_seldom_lie_on_the_grid() -> None:
    method = FedRec(width=8, start_size=0.5, virtual=1, fill="mean")
    found = claimed(ATTACK, method, WORLD, shown(method, WORLD, 1))

    rated = ~ratings_of(WORLD).isnan()
    claims = ~table(found, WORLD).isnan()
    assert share_right(found, WORLD) > 0.95
    assert (claims & rated).sum() / claims.sum() > 0.8


@pytest.mark.parametrize("method", FORMS[:2] + FORMS[4:6], ids=name)
def test_a_guess_does_not_depend_on_how_clients_are_cut_or_ordered(
    method: FedMF,
) -> None:
    whole = claimed(ATTACK, method, WORLD, shown(method, WORLD, 2, size=100))
    for size in (1, 3):
        cut = claimed(ATTACK, method, WORLD, shown(method, WORLD, 2, size=size))
        assert torch.equal(
            table(whole, WORLD).nan_to_num(), table(cut, WORLD).nan_to_num()
        )


def test_an_attack_that_was_not_prepared_says_so() -> None:
    view = ServerView(round=0, model={"items": torch.zeros(2, 2)})
    with pytest.raises(TypeError, match="prepared"):
        ATTACK.observe({}, view)


def test_an_unusable_setting_is_named() -> None:
    with pytest.raises(ValueError, match="deviations"):
        RatingGrid(deviations=-1.0)
