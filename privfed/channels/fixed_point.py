"""Numbers as bounded integers, so that sums are exact and never wrap.

A sum of ``terms`` encoded numbers stays within ``terms * levels``; whoever adds them
modulo m must keep that at or under (m - 1) / 2. Steps are powers of two: scaling
rounds nothing, and integers stay integers wherever the step is 1 or finer.
"""

from dataclasses import dataclass
from math import ceil, frexp, inf

import torch
from torch import Tensor

from privfed.errors import PrivfedError


class OverBound(Exception):
    """A number is larger than its bound; ``largest`` is its absolute value."""

    def __init__(self, largest: float) -> None:
        super().__init__(f"{largest:g} is over the bound")
        self.largest = largest


@dataclass(frozen=True)
class FixedPoint:
    """Multiples of 2^-bits, ``bound`` at most in absolute value."""

    bound: float
    bits: int

    @property
    def step(self) -> float:
        """The distance of two neighbors; an encoded number is off by less."""
        return 2.0**-self.bits

    @property
    def levels(self) -> int:
        """The largest absolute value of an encoded number."""
        return ceil(self.bound / self.step)

    def encode(self, value: Tensor) -> Tensor:
        """Numbers cut toward zero: no norm grows, so what bounds an upload still holds.

        Raises OverBound, also for what is no number.
        """
        largest = float(value.abs().max()) if value.numel() else 0.0
        if not largest <= self.bound:
            raise OverBound(largest)
        return torch.trunc(value.double() / self.step).to(torch.int64)

    def decode(self, sums: Tensor, terms: int, noise: int = 0) -> Tensor:
        """Sums of ``terms`` encoded numbers, each at most ``noise`` off, as float64.

        Raises PrivfedError where a sum is larger than that many numbers can add up to.
        """
        most = terms * self.levels + noise
        if sums.numel() and int(sums.abs().max()) > most:
            raise PrivfedError(
                f"a sum of {terms} uploads is outside of what they can add up to: it "
                "was changed on the way, or read with another key; do not use it"
            )
        return sums.double() * self.step


def finest(bound: float, terms: int, capacity: int) -> FixedPoint:
    """The finest numbers up to ``bound`` of which ``terms`` add up to ``capacity``.

    Raises ValueError where not even steps as large as the bound fit.
    """
    if not 0 < bound < inf:
        raise ValueError(f"bound must be positive, got {bound}")
    levels = capacity // max(terms, 1)
    if levels < 1:
        raise ValueError(f"{terms} terms do not fit {capacity}")
    _, exponent = frexp(levels / bound)
    bits = exponent - 1
    while ceil(bound * 2.0**bits) > levels:  # where bound is no multiple of the step
        bits -= 1
    return FixedPoint(bound, bits)
