"""Which clients take part, round by round."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from privfed.sampling import Sampling
from privfed.seeds import Seeds
from tests.worlds import world

SEEDS = Seeds(4)
WORLD = world([[] if c % 2 else list(range(1 + c % 5)) for c in range(60)], 9)
PEOPLE = WORLD.eligible  # thirty clients, 0, 2, ...


def rounds_of(sampling: Sampling, count: int, of: Tensor = PEOPLE) -> list[Tensor]:
    return [sampling.clients(r, of, SEEDS) for r in range(count)]


def test_all_takes_everyone() -> None:
    for cohort in rounds_of(Sampling("all"), 3):
        assert torch.equal(cohort, PEOPLE)


def test_uniform_takes_so_many_different_ones_and_differs_by_round() -> None:
    cohorts = rounds_of(Sampling("uniform", 10), 40)

    for cohort in cohorts:
        assert len(torch.unique(cohort)) == 10
        assert torch.isin(cohort, PEOPLE).all()
        assert torch.equal(cohort, cohort.sort().values)
    taken = torch.bincount(torch.cat(cohorts), minlength=60)[PEOPLE]
    assert taken.min() >= 4  # expected 13.3, deviation 3
    assert taken.max() <= 23
    assert len({tuple(c.tolist()) for c in cohorts}) > 35


def test_poisson_takes_each_by_chance_whoever_else_comes() -> None:
    cohorts = rounds_of(Sampling("poisson", 10), 600)

    sizes = torch.tensor([len(cohort) for cohort in cohorts]).double()
    assert sizes.mean() == pytest.approx(10, abs=5 * (30 * 2 / 9 / 600) ** 0.5)
    assert sizes.var() == pytest.approx(30 * 2 / 9, rel=0.3)  # binomial, not fixed
    taken = torch.bincount(torch.cat(cohorts), minlength=60)[PEOPLE].double()
    assert (taken / 600 - 1 / 3).abs().max() < 5 * (2 / 9 / 600) ** 0.5
    fewer = PEOPLE[PEOPLE != 8]
    for cohort in cohorts[:50]:
        assert torch.equal(cohort, cohort.sort().values)
        assert torch.isin(cohort, PEOPLE).all()
    both = zip(cohorts, rounds_of(Sampling("poisson", 10), 50, fewer), strict=False)
    for with_one, without in both:  # a little likelier, and otherwise the same draws
        assert torch.isin(with_one[with_one != 8], without).all()


def test_poisson_of_everybody_is_everybody() -> None:
    for cohort in rounds_of(Sampling("poisson", 30), 3):
        assert torch.equal(cohort, PEOPLE)


def test_a_poisson_round_may_be_empty() -> None:
    few = rounds_of(Sampling("poisson", 1), 40)

    assert min(len(cohort) for cohort in few) == 0
    assert Sampling("poisson", 1).participations(40, WORLD, SEEDS) >= 1


def test_a_queue_serves_everyone_before_anyone_twice() -> None:
    cohorts = rounds_of(Sampling("queue", 10), 6)

    for turn in (cohorts[:3], cohorts[3:]):
        assert torch.equal(torch.cat(turn).sort().values, PEOPLE)
    uneven = torch.cat(rounds_of(Sampling("queue", 7), 30))
    assert set(torch.bincount(uneven)[PEOPLE].tolist()) == {7}


@given(st.integers(2, 40), st.integers(1, 20), st.integers(0, 1000))
def test_with_rest_nobody_is_taken_twice_running(
    people: int, count: int, seed: int
) -> None:
    sampling, eligible = Sampling("uniform", count, rest=True), torch.arange(people)
    cohorts = [sampling.clients(r, eligible, Seeds(seed)) for r in range(5)]

    for before, after in pairwise(cohorts):
        assert len(after) == min(count, people)
        if 2 * count <= people:
            assert not torch.isin(after, before).any()


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling("all"),
        Sampling("uniform", 7),
        Sampling("uniform", 7, rest=True),
        Sampling("queue", 7),
        Sampling("uniform", 100),
        Sampling("poisson", 9),
    ],
    ids=lambda s: f"{s.kind}-{s.clients_per_round}-{s.rest}",
)
@pytest.mark.parametrize("rounds", [0, 1, 9])
def test_participations_is_the_most_of_any_client(
    sampling: Sampling, rounds: int
) -> None:
    seen = rounds_of(sampling, rounds)
    most = int(torch.bincount(torch.cat(seen)).max()) if seen else 0

    assert sampling.participations(rounds, WORLD, SEEDS) == most


def test_a_schedule_is_a_function_of_the_seed() -> None:
    sampling = Sampling("uniform", 10)

    assert torch.equal(
        sampling.clients(3, PEOPLE, SEEDS), sampling.clients(3, PEOPLE, Seeds(4))
    )
    assert not torch.equal(
        sampling.clients(3, PEOPLE, SEEDS), sampling.clients(3, PEOPLE, Seeds(5))
    )


def test_a_round_needs_somebody() -> None:
    with pytest.raises(ValueError, match="clients_per_round must be at least 1, got 0"):
        Sampling("uniform", 0)


def test_interactions_are_served_once_an_epoch_with_their_clients() -> None:
    sampling = Sampling("interactions", interactions_per_round=7)
    count = len(WORLD.train.item)
    epoch = -(-count // 7)
    first, second = (
        [sampling.cohort(r + start, WORLD, SEEDS) for r in range(epoch)]
        for start in (0, epoch)
    )

    for turn in (first, second):
        pairs = sorted(
            (int(c.clients[s]), int(i))
            for c in turn
            for s, i in zip(c.sender, c.item, strict=True)
        )
        everything = zip(WORLD.train.owner, WORLD.train.item, strict=True)
        assert pairs == sorted((int(u), int(i)) for u, i in everything)
        assert [len(c.item) for c in turn[:-1]] == [7] * (epoch - 1)
        for cohort in turn:
            assert torch.equal(cohort.clients, torch.unique(cohort.clients))
            assert torch.equal(cohort.sender, cohort.sender.sort().values)
    assert [c.item.tolist() for c in first] != [c.item.tolist() for c in second]


@given(st.integers(1, 200), st.integers(1, 40))
def test_participations_by_interactions_are_never_told_too_few(
    size: int, rounds: int
) -> None:
    sampling = Sampling("interactions", interactions_per_round=size)
    seen = [sampling.cohort(r, WORLD, SEEDS).clients for r in range(rounds)]
    most = int(torch.bincount(torch.cat(seen)).max())

    assert most <= sampling.participations(rounds, WORLD, SEEDS) <= rounds
