"""Ratings come out of sums, with a name where cohorts change."""

from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from privfed.attacks.ratings.sum_ratings import SumRatings
from privfed.channels.masked.channel import Masked
from privfed.channels.plain import Plain
from privfed.data.world import Ragged, Shape, World
from privfed.defenses.gaussian import Gaussian
from privfed.guesses import Ratings
from privfed.interfaces import Channel, Defense
from privfed.methods.bpr import BPR
from privfed.methods.fedmf import FedMF
from privfed.metrics.leakage import judge
from privfed.metrics.leakage.judged import Judged, Truth, interval
from privfed.rounds import Setup, run
from privfed.sampling import Sampling
from tests.attacks.views import SEEDS
from tests.worlds import world

METHOD = FedMF(width=16, learning_rate=3e-4, start=0.4, start_spread=0.2)


def rated(clients: int = 30, items: int = 150, each: int = 20) -> World:
    rng = Generator().manual_seed(9)
    lists = [
        torch.randperm(items, generator=rng)[: each + k % 7].tolist()
        for k in range(clients)
    ]
    plain = world(lists, items)
    label = torch.randint(1, 6, (len(plain.train.item),), generator=rng).float()
    train = plain.train
    train = Ragged(train.offsets, train.item, label, train.context)
    shape = Shape(clients, items, scale=(1.0, 5.0), step=1.0)
    return replace(plain, task="rating", train=train, shape=shape)


def attacked(
    sampling: Sampling, rounds: int, *defenses: Defense, channel: Channel | None = None
) -> tuple[Ratings, Judged]:
    of = rated()
    outcome = run(
        Setup(
            of,
            METHOD,
            channel or Plain(),
            defenses,
            {"it": SumRatings()},
            sampling,
            rounds=rounds,
        )
    )
    guess = outcome.guesses["it"]
    assert isinstance(guess, Ratings)
    truth = Truth(of, {}, {}, outcome.state.took_part)
    found = judge(guess, truth, outcome.priors["it"])
    assert isinstance(found, Judged)
    return guess, found


def mean(found: Judged, name: str) -> float:
    return found.scores[name].mean()


def test_a_cohort_of_one_tells_every_rating() -> None:
    guess, found = attacked(Sampling("queue", clients_per_round=1), 30)
    assert len(guess.clients) == 30
    assert mean(found, "exact") == mean(found, "precision") == 1.0


def test_one_sum_of_a_few_tells_ratings_without_names() -> None:
    """Each client comes once: a rating that one of three gave is told of all three."""
    guess, found = attacked(Sampling("queue", clients_per_round=3), 10)
    assert mean(found, "coverage") > 0.95
    assert mean(found, "within_half_star") > 0.8
    assert mean(found, "precision") < 0.5
    assert len(guess.sender) == len(
        {*zip(guess.sender.tolist(), guess.item.tolist(), strict=True)}
    )


@pytest.mark.parametrize("channel", [Plain(), Masked(min_cohort=3)])
def test_sums_over_changing_cohorts_name_them(channel: Channel) -> None:
    sampling = Sampling("uniform", clients_per_round=4)
    _, found = attacked(sampling, 40, channel=channel)
    assert mean(found, "exact") > 0.95
    assert mean(found, "precision") > 0.95
    low, _ = interval(found.advantage(), SEEDS("bootstrap"))
    assert low > 0.3


def test_everybody_in_every_round_cannot_be_named() -> None:
    guess, found = attacked(Sampling(), 3)
    assert mean(found, "precision") < 0.2
    assert guess.rating.isfinite().all()


def test_noise_leaves_nothing() -> None:
    sampling = Sampling("uniform", clients_per_round=4)
    guess, found = attacked(sampling, 20, Gaussian(variance=1.0))
    assert len(guess.sender) == 0
    assert mean(found, "exact") == 0


def test_what_it_says_nothing_about() -> None:
    assert "error" in SumRatings().misfit(BPR())
    assert not SumRatings().misfit(FedMF())


@pytest.mark.parametrize("name", ["lines", "rounds", "margin", "near"])
def test_settings_must_be_positive(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        replace(SumRatings(), **{name: 0})


def test_a_client_is_claimed_once_by_item_and_in_range() -> None:
    guess, _ = attacked(Sampling("uniform", clients_per_round=5), 15)
    pair: Tensor = guess.sender * 150 + guess.item
    assert len(torch.unique(pair)) == len(pair)
    assert bool(((guess.rating >= 1) & (guess.rating <= 5)).all())
