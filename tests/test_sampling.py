"""Which clients take part, round by round."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from privfed.sampling import Sampling
from privfed.seeds import Seeds

SEEDS = Seeds(4)
PEOPLE = torch.arange(0, 60, 2)  # thirty clients


def rounds_of(sampling: Sampling, count: int, of: Tensor = PEOPLE) -> list[Tensor]:
    return [sampling.cohort(r, of, SEEDS) for r in range(count)]


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
    cohorts = [sampling.cohort(r, eligible, Seeds(seed)) for r in range(5)]

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
    ],
    ids=lambda s: f"{s.kind}-{s.clients_per_round}-{s.rest}",
)
@pytest.mark.parametrize("rounds", [0, 1, 9])
def test_participations_is_the_most_of_any_client(
    sampling: Sampling, rounds: int
) -> None:
    seen = rounds_of(sampling, rounds)
    most = int(torch.bincount(torch.cat(seen)).max()) if seen else 0

    assert sampling.participations(rounds, PEOPLE, SEEDS) == most


def test_a_schedule_is_a_function_of_the_seed() -> None:
    sampling = Sampling("uniform", 10)

    assert torch.equal(
        sampling.cohort(3, PEOPLE, SEEDS), sampling.cohort(3, PEOPLE, Seeds(4))
    )
    assert not torch.equal(
        sampling.cohort(3, PEOPLE, SEEDS), sampling.cohort(3, PEOPLE, Seeds(5))
    )


def test_a_round_needs_somebody() -> None:
    with pytest.raises(ValueError, match="clients_per_round must be at least 1, got 0"):
        Sampling("uniform", 0)
