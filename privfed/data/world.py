"""What one run trains and measures on: interactions, split by client."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Shape:
    """Public sizes of a population."""

    clients: int
    items: int
    widths: Mapping[str, int] = field(default_factory=dict)  # features by modality


def spans(starts: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of several runs of pairs, one after the other: (run, index)."""
    run = torch.repeat_interleave(torch.arange(len(counts)), counts)
    within = torch.arange(len(run)) - (counts.cumsum(0) - counts)[run]
    return run, starts[run] + within


@dataclass(frozen=True, eq=False)
class Ragged:
    """Pairs (item, label) of every client, laid end to end by client."""

    offsets: Tensor  # (clients + 1,)
    item: Tensor  # (pairs,)
    label: Tensor  # (pairs,) rating, or 1 for implicit data

    @cached_property
    def counts(self) -> Tensor:
        """Pairs of each client, (clients,)."""
        return self.offsets.diff()

    @cached_property
    def owner(self) -> Tensor:
        """Client of each pair, (pairs,)."""
        return torch.repeat_interleave(torch.arange(len(self.counts)), self.counts)

    def to(self, device: torch.device) -> "Ragged":
        """The same pairs on a device."""
        parts = (self.offsets, self.item, self.label)
        return Ragged(*(part.to(device) for part in parts))

    def of(self, clients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (sender, item, label) of some clients; sender is a position."""
        sender, at = spans(self.offsets[clients], self.counts[clients])
        return sender, self.item[at], self.label[at]


def ragged(clients: int, owner: Tensor, item: Tensor, label: Tensor) -> Ragged:
    """Lay pairs end to end by client, keeping their order within a client."""
    order = torch.argsort(owner, stable=True)
    counts = torch.bincount(owner, minlength=clients)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Ragged(offsets, item[order], label[order])


@dataclass(frozen=True, eq=False)
class World:
    """A population, split into training, validation and test pairs."""

    name: str
    shape: Shape
    train: Ragged
    validation: Ragged
    test: Ragged
    explicit: bool = False
    features: Mapping[str, Tensor] = field(default_factory=dict)  # (items, width)
    candidates: Tensor | None = None  # (clients, k): a protocol's own negatives
    fingerprint: str = ""

    def to(self, device: torch.device) -> "World":
        """The same world with its tensors on a device."""
        candidates = self.candidates
        return replace(
            self,
            train=self.train.to(device),
            validation=self.validation.to(device),
            test=self.test.to(device),
            features={n: v.to(device) for n, v in self.features.items()},
            candidates=None if candidates is None else candidates.to(device),
        )

    @cached_property
    def popularity(self) -> Tensor:
        """Training interactions of each item, (items,)."""
        return torch.bincount(self.train.item, minlength=self.shape.items)


@dataclass(frozen=True)
class Source:
    """A world and the words that describe where it came from."""

    world: World
    split: str  # "leave one out by time", "80/10/10 by user", "given by the source"
    notes: tuple[str, ...] = ()
