"""Two uploads of a client tell its ratings, or one where its vector turns in it."""

from dataclasses import replace
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator

from privfed.attacks.ratings.two_rounds import RatingTwoRounds
from privfed.attacks.reading import rank_one
from privfed.attacks.reading.rank_one import principal
from privfed.defenses.gaussian import Gaussian
from privfed.messages import Rows, Uploads
from privfed.methods.fedavg import FedAvg
from privfed.methods.fedmf import FedMF
from privfed.methods.fedrec import FedRec
from privfed.surfaces import Pass
from privfed.views import ServerView
from tests.attacks.rated import (
    all_right,
    claimed,
    share_right,
    shown,
    stars,
    table,
    truth,
)

ATTACK = RatingTwoRounds()
WORLD = stars()
HALVES = stars(step=0.5)
BASE = FedMF(
    width=8, learning_rate=3e-3, start=0.0, start_spread=0.3, steps="all", reads="old"
)
FORMS = [
    replace(BASE, steps=steps, reads=reads, upload=upload)
    for steps in ("all", "each")
    for reads in ("old", "new")
    for upload in ("part", "full")
]


def name(method: FedMF) -> str:
    return f"{method.steps}-{method.reads}-{method.upload}"


@pytest.mark.parametrize("method", FORMS, ids=name)
def test_two_rounds_tell_every_rating_exactly(method: FedMF) -> None:
    method = replace(method, regularization=0.05)
    for world in (WORLD, HALVES):
        found = claimed(ATTACK, method, world, shown(method, world))

        assert all_right(found, world)


@pytest.mark.parametrize("reads", ["old", "new"])
def test_one_upload_is_enough_where_the_vector_moves_with_each_rating(
    reads: Literal["old", "new"],
) -> None:
    method = replace(BASE, steps="each", reads=reads)

    assert all_right(claimed(ATTACK, method, WORLD, shown(method, WORLD, 1)), WORLD)


def test_one_upload_of_a_vector_that_moves_once_tells_nothing() -> None:
    found = claimed(ATTACK, BASE, WORLD, shown(BASE, WORLD, 1))

    assert len(found.clients) == WORLD.shape.clients
    assert not len(found.rating)


@pytest.mark.parametrize("fill", ["mean", "hybrid"])
def test_virtual_ratings_are_told_from_real_ones(
    fill: Literal["mean", "hybrid"],
) -> None:
    method = FedRec(width=8, start_size=0.5, virtual=1, fill=fill, predict_after=2)

    found = claimed(ATTACK, method, WORLD, shown(method, WORLD, 6))

    assert share_right(found, WORLD) > 0.99
    rated = ~truth(WORLD).isnan()
    claims = ~table(found, WORLD).isnan()
    assert (claims & rated).sum() / claims.sum() > 0.94


def test_the_closed_form_is_that_of_a_client_by_itself() -> None:
    """Written out for one client, with a singular value decomposition."""
    how = BASE.pass_(0)
    views = list(shown(BASE, WORLD, size=100))
    models = [v.model["items"] for v in views if isinstance(v, ServerView)]
    client = 4
    rows = []
    for view, model in zip([1, 1 + len(views) // 2], models, strict=True):
        for one in views[view : view + len(views) // 2 - 1]:
            up = one.uploads  # type: ignore[attr-defined]
            at = (up.clients == client).nonzero()
            if len(at):
                mine = up.rows["items"].sender == int(at)
                item = up.rows["items"].item[mine]
                value = up.rows["items"].value[mine].double()
                known = model[item].double()
                error = value / (2 * how.rate) + how.decay * known
                rows.append((item, error, known))
    (item, first, known), (_, second, _) = rows
    w, v = (torch.linalg.svd(e).Vh[0] for e in (first, second))
    q = first @ w
    a = (1 - 2 * how.rate * how.decay) * w
    b = 2 * how.rate * (q[:, None] * known).sum(0)
    a, b = (x - v * (v @ x) for x in (a, b))
    s = (-(a @ b) / (a @ a)).sqrt()
    rating = q / s + s * (known @ w)
    rating = rating * rating.mean().sign()

    bare = replace(WORLD, shape=replace(WORLD.shape, step=0.0))
    found = table(claimed(ATTACK, BASE, bare, views), bare)

    torch.testing.assert_close(found[client, item], rating.clamp(1, 5))
    torch.testing.assert_close(rating, truth(WORLD)[client, item], atol=1e-3, rtol=0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(2, 9))
def test_the_axis_is_the_first_singular_vector(
    seed: int, rows: int, width: int
) -> None:
    rng = Generator().manual_seed(seed)
    x = torch.randn(rows, width, generator=rng, dtype=torch.float64)
    x = x + 4 * torch.outer(x[:, 0], torch.ones(width).double())

    axis = principal(x, torch.zeros(rows, dtype=torch.int64), 1, power=400)[0]

    other = torch.linalg.svd(x).Vh[0]
    assert abs(float(axis @ other)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("method", FORMS[:2] + FORMS[4:6], ids=name)
def test_a_guess_does_not_depend_on_how_clients_are_cut_or_ordered(
    method: FedMF,
) -> None:
    whole = claimed(ATTACK, method, WORLD, shown(method, WORLD, 3, size=100))
    for size in (1, 3):
        cut = claimed(ATTACK, method, WORLD, shown(method, WORLD, 3, size=size))
        for one, two in zip(
            (whole.clients, whole.sender, whole.item, whole.rating),
            (cut.clients, cut.sender, cut.item, cut.rating),
            strict=True,
        ):
            assert torch.equal(one, two)


def test_vectors_that_start_alike_never_turn_and_nothing_is_claimed() -> None:
    """The released code's own start: its model has rank one."""
    method = FedMF(width=8, steps="all", reads="old")

    assert not len(claimed(ATTACK, method, WORLD, shown(method, WORLD, 3)).rating)


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


def test_noise_on_every_row_hides_ratings_by_degrees() -> None:
    """What is claimed under little noise is right; under much, little is claimed."""
    shares = []
    for variance in (1e-10, 1e-2, 1e3):
        defense = Gaussian(variance=variance)
        found = claimed(ATTACK, BASE, WORLD, shown(BASE, WORLD, 3, defense), [defense])
        shares.append(share_right(found, WORLD))
    assert shares[0] > 0.99
    assert shares[0] >= shares[1] > shares[2]
    assert shares[2] < 0.05


def test_watching_changes_no_view() -> None:
    views = list(shown(BASE, WORLD))
    before = [
        v.uploads.rows["items"].value.clone() for v in views if hasattr(v, "uploads")
    ]

    claimed(ATTACK, BASE, WORLD, views)

    after = [v.uploads.rows["items"].value for v in views if hasattr(v, "uploads")]
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


def test_methods_that_are_no_inner_products_are_no_target() -> None:
    assert "inner products" in ATTACK.misfit(FedAvg())
    assert "Adam" in ATTACK.misfit(replace(BASE, optimizer="adam"))
    assert not ATTACK.misfit(BASE)


def test_an_attack_that_was_not_prepared_says_so() -> None:
    view = ServerView(round=0, model={"items": torch.zeros(2, 2)})
    with pytest.raises(TypeError, match="prepared"):
        ATTACK.observe({}, view)


def test_an_unusable_setting_is_named() -> None:
    with pytest.raises(ValueError, match="deviations"):
        RatingTwoRounds(deviations=0.0)


def test_a_row_of_zeros_is_of_an_item_that_nobody_rated() -> None:
    rows = Rows(
        torch.tensor([0, 0, 0]),
        torch.tensor([0, 1, 2]),
        torch.tensor([[1.0, 2.0], [0.0, 0.0], [2.0, 4.0]]),
    )
    told = rank_one.read(rows, 1, torch.ones(9, 2), Pass(0.1, 0.0), 0.1, 3.0)

    assert told.item.tolist() == [0, 2]
