"""Draws are pure functions of their keys, and look random."""

from math import sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from privfed.seeds import Seeds, Stream

CLIENTS = torch.arange(300)
COUNTER = torch.arange(400)
WORD = 2**64


def mixed(x: int) -> int:
    """SplitMix64's finalizer, on Python's own integers."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % WORD
    return x ^ (x >> 31)


@given(
    key=st.integers(-(2**63), 2**63 - 1),
    client=st.integers(0, 2**40),
    counter=st.integers(0, 2**40),
)
def test_bits_are_splitmix64(key: int, client: int, counter: int) -> None:
    golden = 0x9E3779B97F4A7C15
    lane = mixed((client * golden + key) % WORD)
    expected = mixed((lane + counter * golden) % WORD) >> 1

    found = Stream(key).bits(torch.tensor(client), torch.tensor(counter))

    assert int(found) == expected


def test_splitmix64s_published_first_output() -> None:
    """Seed 0 of the reference implementation by Vigna."""
    assert mixed(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF


def test_uniform_draws_fill_the_unit_interval_evenly() -> None:
    drawn = Seeds(1)("test").uniform(CLIENTS[:, None], COUNTER[None])
    n = drawn.numel()

    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert abs(drawn.mean().item() - 0.5) < 5 / sqrt(12 * n)
    counts = torch.histc(drawn, 100, 0, 1)
    chi_square = ((counts - n / 100) ** 2 / (n / 100)).sum().item()
    assert 51 < chi_square < 166  # 99 degrees of freedom, about four deviations
    for a, b in ((drawn[1:], drawn[:-1]), (drawn[:, 1:], drawn[:, :-1])):
        pair = torch.stack([a.flatten(), b.flatten()])
        assert abs(torch.corrcoef(pair)[0, 1].item()) < 5 / sqrt(n)


@pytest.mark.parametrize("high", [1, 2, 7, 1682])
def test_integers_lie_in_range_and_reach_every_value(high: int) -> None:
    drawn = Seeds(1)("test").integers(CLIENTS[:, None], COUNTER[None], high)
    assert set(drawn.flatten().tolist()) == set(range(high))


def test_normal_draws_are_standard() -> None:
    out = torch.empty(200_000)
    Seeds(1)("noise").normal(torch.tensor([5]), [out])
    assert abs(out.mean().item()) < 5 / sqrt(200_000)
    assert abs(out.std().item() - 1) < 5 / sqrt(400_000)


def test_a_draw_does_not_depend_on_the_shard() -> None:
    stream = Seeds(1)("test")
    whole = stream.bits(CLIENTS[:, None], COUNTER[None])

    assert torch.equal(
        whole[7:9, 3:], stream.bits(CLIENTS[7:9, None], COUNTER[None, 3:])
    )
    assert torch.equal(_draws(stream, 3), _draws(stream, 3))


def test_every_key_has_its_own_draws() -> None:
    streams = [
        Seeds(seed)(purpose, round).of(part, number)
        for seed in (0, 1)
        for purpose in ("train", "attack")
        for round in (0, 1)
        for part in ("a", "b")
        for number in (0, 1)
    ]
    drawn = torch.stack([s.uniform(torch.tensor(0), COUNTER) for s in streams])

    assert len({s.key for s in streams}) == len(streams)
    correlation = torch.corrcoef(drawn) - torch.eye(len(streams))
    assert correlation.abs().max() < 6 / sqrt(len(COUNTER))


def test_generators_repeat() -> None:
    first, again = (
        torch.randn(3, generator=Seeds(3)("init").generator()) for _ in range(2)
    )
    assert torch.equal(first, again)


def _draws(stream: Stream, client: int) -> torch.Tensor:
    out = torch.empty(4)
    stream.normal(torch.tensor([client]), [out])
    return out
