"""What comes back is told from what is drawn anew."""

import pytest
import torch
from torch import Generator, Tensor

from privfed.adversary import Prior
from privfed.attacks.items.recurrence import Recurrence
from privfed.attacks.items.support import Support
from privfed.channels.masked.channel import Masked
from privfed.channels.plain import Plain
from privfed.data.splits import by_ratio
from privfed.data.world import Shape
from privfed.data.worlds import demo
from privfed.guesses import Items
from privfed.methods.fedavg import FedAvg
from privfed.methods.fedmf import FedMF
from privfed.methods.fedrec import FedRec
from privfed.metrics.leakage.items import score
from privfed.rounds import Setup, run
from privfed.seeds import Seeds
from privfed.views import ItemsView
from tests.attacks.views import guess, prior_of, trained, truth
from tests.worlds import world

ITEMS = 120


def drawn(seed: int, uploads: int, rate: float) -> tuple[list[ItemsView], Tensor]:
    """Four clients that always send 8 items, and others at a rate; which 8."""
    rng = Generator().manual_seed(seed)
    real = torch.rand(4, ITEMS, generator=rng).argsort(1) < 8
    views = []
    for number in range(uploads):
        sent = real | (torch.rand(4, ITEMS, generator=rng) < rate)
        sender, item = sent.nonzero(as_tuple=True)
        views.append(
            ItemsView(
                round=number,
                clients=torch.arange(4),
                bytes_up=torch.zeros(4, dtype=torch.int64),
                items={"items": (sender, item)},
            )
        )
    return views, real


def test_ten_uploads_tell_what_always_comes() -> None:
    for seed in range(5):
        views, real = drawn(seed, 10, 0.3)
        found = guess(Recurrence(), prior_of(4, ITEMS, 4), *views)
        assert torch.equal(found.chosen, real)


def test_the_log_odds_are_those_of_two_binomials() -> None:
    """With rates as they came out: by hand, one client."""
    views, real = drawn(0, 6, 0.2)
    found = guess(Recurrence(), prior_of(4, ITEMS, 4), *views)
    came = torch.stack([_came(view) for view in views]).sum(0)
    for client in range(4):
        order = found.score[client].argsort(descending=True)
        assert came[client][order].diff().le(0).all()  # no popularity: k alone counts
        assert set(order[:8].tolist()) == set(real[client].nonzero()[:, 0].tolist())


def _came(view: ItemsView) -> Tensor:
    came = torch.zeros(4, ITEMS, dtype=torch.int64)
    came[view.items["items"]] = 1
    return came


def test_one_upload_without_popularity_ranks_as_the_support_does() -> None:
    views, _ = drawn(1, 1, 0.3)
    found, plain = (
        guess(attack, prior_of(4, ITEMS, 4), *views)
        for attack in (Recurrence(), Support("all"))
    )
    for ours, theirs in zip(found.score, plain.score, strict=True):
        assert ours[theirs > 0].min() > ours[theirs == 0].max()


def test_popularity_decides_where_all_comes_alike() -> None:
    views, real = drawn(2, 1, 0.3)
    popular = real.any(0) * 100.0 + 1
    found = guess(Recurrence(), prior_of(4, ITEMS, 4, popular), *views)
    figures = score(
        found, world([r.nonzero()[:, 0].tolist() for r in real], ITEMS).train
    )
    assert figures["auc"].min() > 0.95


def test_where_nothing_is_drawn_one_upload_is_claimed_whole() -> None:
    views, _ = drawn(3, 1, 0.2)
    prior = Prior(Shape(4, ITEMS), Seeds(0)("attack"), FedMF())
    found = guess(Recurrence(), prior, *views)
    assert torch.equal(found.chosen, _came(views[0]) > 0)


def test_resampled_negatives_of_real_training_average_out() -> None:
    rng = Generator().manual_seed(4)
    of = world([torch.randperm(200, generator=rng)[:9].tolist() for _ in range(6)], 200)
    views = list(trained(FedAvg(width=4, epochs=1), of, 12))
    prior = prior_of(6, 200, 4)

    found, plain = (
        guess(attack, prior, *views) for attack in (Recurrence(), Support("all"))
    )

    assert (found.chosen == truth(of, found.clients)).float().mean() > 0.99
    assert (plain.chosen == truth(of, plain.clients)).float().mean() < 0.9


@pytest.mark.parametrize("channel", ["plain", "secagg"])
def test_virtual_ratings_are_told_from_real_ones(channel: str) -> None:
    """Also under secure aggregation that sends item ids in the clear."""
    of = by_ratio(demo(users=24, items=120), 0, task="rating")
    masked = Masked(rows="touched", min_cohort=2)
    asked = Setup(
        of,
        FedRec(width=4),
        masked if channel == "secagg" else Plain(),
        attacks={"recurrence": Recurrence()},
        rounds=12,
    )
    found = run(asked).guesses["recurrence"]
    assert isinstance(found, Items)
    figures = score(found, of.train)
    assert figures["f1"].nanmean() > 0.9


def test_no_order_of_uploads_changes_a_bit() -> None:
    views, _ = drawn(5, 6, 0.3)
    prior = prior_of(4, ITEMS, 4)
    found, turned = (guess(Recurrence(), prior, *v) for v in (views, views[::-1]))
    assert torch.equal(found.score, turned.score)
    assert torch.equal(found.chosen, turned.chosen)


def test_without_views_there_is_no_claim() -> None:
    found = guess(Recurrence(), prior_of(3, 4, 1))
    assert found.score.shape == found.chosen.shape == (0, 4)


def test_it_is_shown_no_value() -> None:
    assert Recurrence.sees == (ItemsView,)
