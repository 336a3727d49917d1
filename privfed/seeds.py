"""Random draws keyed by purpose, round and client.

A draw is a pure function of (seed, purpose, round, client, counter), so adding a
part changes nobody else's draws, and neither shard size, worker count, order nor
device changes any. Integers come from SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)
used as a counter-based generator, so that a whole shard is drawn in one tensor
operation; Gaussian noise comes from one ``torch.Generator`` a client. Both simulate
devices and are not cryptographic.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of signed 64-bit integers."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _MIX1
    x = (x ^ _shift(x, 27)) * _MIX2
    return x ^ _shift(x, 31)


@dataclass(frozen=True)
class Stream:
    """The draws for one purpose in one round."""

    key: int  # signed 64-bit

    def of(self, what: str, number: int = 0) -> "Stream":
        """A stream of its own for a part of this purpose."""
        words = [self.key & (2**64 - 1), crc32(what.encode()), number]
        return Stream(_key(words))

    def bits(self, client: Tensor, counter: Tensor) -> Tensor:
        """63 random bits for each (client, counter), broadcast together."""
        lane = _mix(client * _GOLDEN + self.key)
        return _shift(_mix(lane + counter * _GOLDEN), 1)

    def uniform(self, client: Tensor, counter: Tensor) -> Tensor:
        """Uniform float64 draws in [0, 1)."""
        return (self.bits(client, counter) >> 10).double() * 2.0**-53

    def integers(self, client: Tensor, counter: Tensor, high: int) -> Tensor:
        """Uniform integers in [0, high); the bias is below high / 2**63."""
        return self.bits(client, counter) % high

    def normal(self, clients: Tensor, out: Sequence[Tensor]) -> None:
        """Fill each client's tensor with standard normal draws of its own generator."""
        seeds = self.bits(clients, torch.zeros_like(clients)).tolist()
        for seed, part in zip(seeds, out, strict=True):
            generator = torch.Generator().manual_seed(seed)
            if part.device.type == "cpu":
                part.normal_(generator=generator)
            else:  # the draws of a CPU, so that a device changes none
                part.copy_(torch.randn(part.shape, generator=generator, device="cpu"))

    def generator(self) -> torch.Generator:
        """A generator for draws that concern no single client."""
        return torch.Generator().manual_seed(self.key & (2**63 - 1))


@dataclass(frozen=True)
class Seeds:
    """All random streams of a run."""

    seed: int

    def __call__(self, purpose: str, round: int = 0) -> Stream:
        return Stream(_key([self.seed, crc32(purpose.encode()), round]))


def _key(words: list[int]) -> int:
    entropy = np.random.SeedSequence(words)
    return int(entropy.generate_state(1, np.uint64)[0].astype(np.int64))
