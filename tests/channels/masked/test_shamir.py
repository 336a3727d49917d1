"""Shares rebuild a secret, and fewer than the threshold say nothing about it."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from privfed.channels.masked import shamir
from privfed.channels.masked.shamir import PRIME


def naive_weights(at: list[int]) -> list[int]:
    """Lagrange's formula at 0 with Python integers."""
    found = []
    for i, x in enumerate(at):
        weight = 1
        for j, other in enumerate(at):
            if i != j:
                weight = weight * other * pow(other - x, -1, PRIME) % PRIME
        found.append(weight)
    return found


@given(
    secrets=st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=4),
    threshold=st.integers(1, 9),
    spare=st.integers(0, 6),
    data=st.data(),
)
def test_any_threshold_shares_give_every_secret_back(
    secrets: list[bytes], threshold: int, spare: int, data: st.DataObject
) -> None:
    count = threshold + spare
    raw = np.frombuffer(b"".join(secrets), np.uint8).reshape(-1, 32)
    elements = shamir.to_limbs(raw)
    powers = shamir.points(threshold, count)
    shares = np.stack([shamir.split(one, powers) for one in elements])
    at = np.stack(
        [
            data.draw(st.permutations(range(count)))[:threshold]
            for _ in range(len(secrets))
        ]
    )

    chosen = np.take_along_axis(shares, at[:, :, None], 1)
    found = shamir.combine(chosen, at + 1)

    assert (shamir.from_limbs(found, 32) == raw).all()


@given(at=st.lists(st.integers(1, PRIME - 1), min_size=1, max_size=8, unique=True))
def test_weights_are_lagranges(at: list[int]) -> None:
    assert shamir.weights(np.array([at]))[0].tolist() == naive_weights(at)


@given(size=st.integers(1, 40), seed=st.integers(0, 99))
def test_limbs_hold_any_bytes(size: int, seed: int) -> None:
    secrets = np.random.default_rng(seed).integers(0, 256, (3, size), np.uint8)
    elements = shamir.to_limbs(secrets)

    assert elements.shape == (3, shamir.limbs(size))
    assert ((elements >= 0) & (elements < 2**15)).all()
    assert (shamir.from_limbs(elements, size) == secrets).all()


def test_an_independent_library_reads_the_shares_and_writes_some() -> None:
    shamirs = pytest.importorskip("shamirs")
    secret = np.array([12345, 0, 32767])
    powers = shamir.points(3, 6)

    ours = shamir.split(secret, powers)
    theirs = [shamirs.shares(int(s), 6, modulus=PRIME, threshold=3) for s in secret]

    for limb, value in enumerate(secret):
        read = [shamirs.share(k + 1, int(ours[k, limb]), PRIME) for k in (5, 0, 3)]
        assert shamirs.interpolate(read) == value
        written = np.array([[one.value for one in theirs[limb][:3]]], np.uint16)
        at = np.array([[one.index for one in theirs[limb][:3]]])
        assert shamir.combine(written[..., None], at)[0, 0] == value


def test_fewer_shares_than_the_threshold_fit_every_secret() -> None:
    """Given 2 of 3 shares, each value of a third point is as good as any other."""
    shares = shamir.split(np.array([4242]), shamir.points(3, 5))[:, 0]
    pair = [int(shares[0]), int(shares[1])]

    for secret in (0, 1, 4242, PRIME - 1):
        # the polynomial through (0, secret) and the pair, at the third point
        third = sum(
            value * weight
            for value, weight in zip(
                [secret, *pair], _weights_at(3, [0, 1, 2]), strict=True
            )
        )
        at = np.array([[1, 2, 3]])
        told = np.array([[[pair[0]], [pair[1]], [third % PRIME]]], np.uint16)
        assert shamir.combine(told, at)[0, 0] == secret


def _weights_at(point: int, at: list[int]) -> list[int]:
    found = []
    for x in at:
        weight = 1
        for other in at:
            if other != x:
                weight = weight * (point - other) * pow(x - other, -1, PRIME) % PRIME
        found.append(weight)
    return found


def test_shares_are_uniform_whatever_the_secret() -> None:
    powers = shamir.points(2, 3)
    shares = np.concatenate(
        [shamir.split(np.full(2000, 7), powers)[k] for k in range(3) for _ in range(10)]
    )

    counts = np.histogram(shares, bins=64, range=(0, PRIME))[0]

    assert chisquare(counts).pvalue > 1e-6


def test_too_few_shares_give_another_secret() -> None:
    secret = np.array([1, 2, 3, 4])
    shares = shamir.split(secret, shamir.points(4, 6))

    found = shamir.combine(shares[None, :3], np.array([[1, 2, 3]]))

    assert (found[0] != secret).any()


@pytest.mark.parametrize(("threshold", "shares"), [(0, 3), (4, 3), (2, PRIME)])
def test_impossible_thresholds_are_refused(threshold: int, shares: int) -> None:
    with pytest.raises(ValueError, match="threshold must be from 1"):
        shamir.points(threshold, shares)


def test_limbs_that_hold_no_secret_are_refused() -> None:
    high = np.full((1, shamir.limbs(32)), 2**15)
    spilled = np.full((1, shamir.limbs(32)), 2**15 - 1)

    for wrong in (high, spilled):
        with pytest.raises(ValueError, match="belong to no secret"):
            shamir.from_limbs(wrong, 32)


def test_dot_products_stay_exact_at_the_largest_threshold_used() -> None:
    """The worst case in double precision, against Python integers."""
    threshold = 943
    powers = shamir.points(threshold, threshold)
    polynomial = np.full((threshold, 1), PRIME - 1)

    fast = (powers.T @ polynomial.astype(np.float64)) % PRIME

    for k in (0, 1, 500, threshold - 1):
        exact = sum((PRIME - 1) * pow(k + 1, e, PRIME) for e in range(threshold))
        assert int(fast[k, 0]) == exact % PRIME


def test_every_subset_of_a_small_sharing_works() -> None:
    secrets = np.array([[11], [22]])
    shares = [shamir.split(one, shamir.points(2, 4)) for one in secrets]

    for which, pair in product((0, 1), combinations(range(4), 2)):
        told = shares[which][list(pair)][None]
        found = shamir.combine(told, np.array([pair]) + 1)
        assert found[0, 0] == secrets[which, 0]
