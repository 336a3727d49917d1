"""Paillier encryption of numbers one by one, as published federated recommenders do it.

By the library phe; nothing of the package uses it, for an upload takes minutes.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from privfed.errors import MissingExtra

PRECISION = 1e-5  # to which FedMF's code rounds numbers
_DEVIATION = 0.05  # of a synthetic number


@dataclass(frozen=True)
class Sampled:
    """What an upload takes, extrapolated; seconds of a processor."""

    measured: int  # numbers
    encrypt: float
    add: float
    decrypt: float
    bytes_up: int
    error: float  # of a sum of two
    relative: float  # over the largest


def library() -> Any:
    """phe's Paillier; raises MissingExtra where it is not installed."""
    try:
        from phe import paillier
    except ImportError:
        raise MissingExtra("phe", "test", "Paillier encryption") from None
    return paillier


def sampled(bits: int, count: int, numbers: int) -> Sampled:
    """What an upload of so many numbers takes, from ``count`` of them."""
    public, private = library().generate_paillier_keypair(n_length=bits)
    rng = torch.Generator().manual_seed(0)
    values: list[float] = (_DEVIATION * torch.randn(count, generator=rng)).tolist()

    def encrypted() -> list[Any]:
        return [public.encrypt(x, precision=PRECISION) for x in values]

    first = encrypted()  # the first of anything takes longer
    private.decrypt(first[0] + first[0])
    second, encrypt = _timed(encrypted)
    sums, add = _timed(lambda: [a + b for a, b in zip(first, second, strict=True)])
    read, decrypt = _timed(lambda: [private.decrypt(x) for x in sums])
    error = max(abs(r - 2 * x) for r, x in zip(read, values, strict=True))
    relative, share = error / max(abs(2 * x) for x in values), numbers / count
    return Sampled(
        count,
        encrypt * share,
        add * share,
        decrypt * share,
        2 * bits // 8 * numbers,
        error,
        relative,
    )


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    found = work()
    return found, time.process_time() - start
