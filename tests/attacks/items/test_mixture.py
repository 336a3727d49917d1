"""The mixture of two kinds of items against a slow twin, and its parts by hand."""

from math import exp, log

import pytest
import torch
from torch import Generator

from privfed.attacks.items.amplitude import log_odds
from privfed.attacks.items.mixture import Mixture
from privfed.attacks.reading.orientation import Sides, turned
from privfed.messages import Rows


def slow(
    mixture: Mixture,
    counts: list[list[float]],
    times: int,
    first: list[float],
    share: list[float],
) -> list[float]:
    """One client of the binomial mixture, item by item."""
    came, chance = counts[0], list(first)
    odds = chance
    for _ in range(mixture.steps):
        many = sum(chance)
        inside = [c * k for c, k in zip(chance, came, strict=True)]
        absent = [c * (times - k) for c, k in zip(chance, came, strict=True)]
        s, f = mixture.smoothing, mixture.faith
        real = (sum(inside) + s + f * (1 - mixture.missing)) / (
            sum(inside) + sum(absent) + 2 * s + f
        )
        out = sum(came) - sum(inside)
        gone = times * len(came) - sum(came) - sum(absent)
        drawn = (out + s) / (out + gone + 2 * s)
        odds = []
        for k, part in zip(came, share, strict=True):
            before = min(max(many * part, 1e-12), 0.95)
            told = k * log(real / drawn) + (times - k) * log((1 - real) / (1 - drawn))
            odds.append(log(before / (1 - before)) + told)
        after = [1 / (1 + exp(-x)) for x in odds]
        moved = max(abs(a - b) for a, b in zip(after, chance, strict=True))
        chance = after
        if moved <= 1e-6:
            break
    return odds


@pytest.mark.parametrize("seed", range(4))
def test_a_shard_of_clients_is_fitted_as_one_by_one(seed: int) -> None:
    rng = Generator().manual_seed(seed)
    times = torch.tensor([3, 7, 1])
    came = (torch.rand(3, 30, generator=rng) * (times[:, None] + 1)).floor()
    share = torch.rand(30, generator=rng).double() + 0.1
    share = share / share.sum()
    first = torch.rand(3, 30, generator=rng).double()
    mixture = Mixture(faith=20.0)

    found = mixture.log_odds(came[None].to(torch.int16), times, first, share)

    for k in range(3):
        expected = slow(
            mixture,
            [came[k].tolist()],
            int(times[k]),
            first[k].tolist(),
            share.tolist(),
        )
        torch.testing.assert_close(
            found[k], torch.tensor(expected).double(), rtol=1e-6, atol=1e-6
        )


def test_the_added_amount_is_averaged_over() -> None:
    """Against the integral, summed over a fine grid."""
    told = torch.tensor([[-1.0, 0.0, 2.0, 9.0, 30.0]], dtype=torch.float64)
    share = torch.full((5,), 0.2, dtype=torch.float64)
    loud = told > 3

    found = log_odds(told, loud, share, 1.0)

    most = 2 * told[loud].mean()
    amount = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000 * most
    density = (-(told[0, :, None] - amount).square() / 2).exp().mean(1)
    ratio = density.log() + told[0].square() / 2
    torch.testing.assert_close(
        (found[0] - found[0, 0]), ratio - ratio[0], rtol=1e-4, atol=1e-4
    )


def sides(up: list[int], down: list[int], popular: list[float], negatives: int) -> bool:
    share = torch.tensor(popular, dtype=torch.float64)
    known = Sides(share / share.sum(), negatives)
    item = torch.tensor([*up, *down])
    sign = torch.tensor([1.0] * len(up) + [-1.0] * len(down))
    rows = Rows(torch.zeros_like(item), item, torch.zeros(len(item), 2))
    no = torch.zeros(1, dtype=torch.bool)
    return bool(turned(rows, sign, torch.zeros(1, 2), known, no)[0])


def test_the_fewer_are_real_where_more_are_drawn() -> None:
    even = [1.0] * 400
    assert not sides([*range(5)], [*range(5, 25)], even, 4)
    assert sides([*range(20)], [*range(20, 25)], even, 4)


def test_of_equal_sides_the_popular_one_is_real() -> None:
    liked = [5.0] * 5 + [1.0] * 395
    assert not sides([*range(5)], [*range(5, 10)], liked, 1)
    assert sides([*range(5, 10)], [*range(5)], liked, 1)


def test_of_as_many_draws_the_larger_side_is_real() -> None:
    even = [1.0] * 400
    assert not sides([*range(40)], [*range(40, 78)], even, 1)
    assert sides([*range(40, 78)], [*range(40)], even, 1)
