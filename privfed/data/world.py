"""What one run trains and measures on: interactions, split by client."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from privfed.data.attributes import Labels

Task = Literal["ranking", "rating", "choice"]


@dataclass(frozen=True)
class Shape:
    """Public facts of a population.

    ``context`` is the width of a choice's context, ``scale`` the ends of the rating
    scale, None where there are no ratings, ``step`` its grain, 0 where it has none.
    """

    clients: int
    items: int
    widths: Mapping[str, int] = field(default_factory=dict)  # features by modality
    context: int = 0
    scale: tuple[float, float] | None = None
    step: float = 0.0


def spans(starts: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of several runs of pairs, one after the other: (run, index)."""
    run = torch.repeat_interleave(counts)
    shift = starts - counts.cumsum(0) + counts
    return run, shift.index_select(0, run) + torch.arange(len(run))


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of a few clients, laid end to end; ``sender`` is a position among them."""

    sender: Tensor  # (pairs,)
    item: Tensor  # (pairs,)
    label: Tensor  # (pairs,)
    context: Tensor  # (pairs, width)


@dataclass(frozen=True, eq=False)
class Ragged:
    """Pairs (item, label) of every client, laid end to end by client.

    ``context`` is what a device knew when it chose the item, of width 0 where that
    is nothing.
    """

    offsets: Tensor  # (clients + 1,)
    item: Tensor  # (pairs,)
    label: Tensor  # (pairs,) rating, or 1 for implicit data
    context: Tensor  # (pairs, width)

    @cached_property
    def counts(self) -> Tensor:
        """Pairs of each client, (clients,)."""
        return self.offsets.diff()

    @cached_property
    def owner(self) -> Tensor:
        """Client of each pair, (pairs,)."""
        return torch.repeat_interleave(torch.arange(len(self.counts)), self.counts)

    @property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.item, self.label, self.context

    def to(self, device: torch.device) -> "Ragged":
        """The same pairs on a device."""
        parts = (self.offsets, *self._parts)
        return Ragged(*(part.to(device) for part in parts))

    def beyond(self, clients: int) -> "Ragged":
        """The same pairs, and so many more clients without one."""
        return replace(
            self, offsets=torch.cat([self.offsets, self.offsets[-1:].expand(clients)])
        )

    def of(self, clients: Tensor) -> Pairs:
        """The pairs of some clients."""
        sender, at = spans(self.offsets[clients], self.counts[clients])
        return self.pairs(sender, at)

    def pairs(self, sender: Tensor, at: Tensor) -> Pairs:
        """The pairs at some places, whose owners stand at ``sender``."""
        parts = (part.index_select(0, at) for part in self._parts)
        return Pairs(sender, *parts)


def ragged(
    clients: int,
    owner: Tensor,
    item: Tensor,
    label: Tensor,
    context: Tensor | None = None,
) -> Ragged:
    """Lay pairs end to end by client, keeping their order within a client."""
    order = torch.argsort(owner, stable=True)
    counts = torch.bincount(owner, minlength=clients)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    known = torch.zeros(len(item), 0) if context is None else context
    return Ragged(offsets, item[order], label[order], known[order])


@dataclass(frozen=True, eq=False)
class World:
    """A population, split into training, validation and test pairs.

    ``learners`` marks the clients that take part in training, None for all: the
    others only adapt what was learned to what they have. The last ``malicious`` clients
    are somebody's who owns none of the data.
    """

    name: str
    shape: Shape
    train: Ragged
    validation: Ragged
    test: Ragged
    task: Task = "ranking"
    learners: Tensor | None = None  # (clients,) bool
    features: Mapping[str, Tensor] = field(default_factory=dict)  # (items, width)
    candidates: Tensor | None = None  # (clients, k): a protocol's own negatives
    attributes: Mapping[str, Labels] = field(default_factory=dict)
    fingerprint: str = ""
    malicious: int = 0

    def joined_by(self, malicious: int) -> "World":
        """The same world with so many malicious clients, who have no interaction."""
        if not malicious:
            return self

        def wider(value: Tensor | None, fill: int) -> Tensor | None:
            if value is None:
                return None
            more = value.new_full((malicious, *value.shape[1:]), fill)
            return torch.cat([value, more])

        return replace(
            self,
            shape=replace(self.shape, clients=self.shape.clients + malicious),
            train=self.train.beyond(malicious),
            validation=self.validation.beyond(malicious),
            test=self.test.beyond(malicious),
            learners=wider(self.learners, 1),
            candidates=wider(self.candidates, 0),
            attributes={n: v.beyond(malicious) for n, v in self.attributes.items()},
            malicious=self.malicious + malicious,
        )

    def to(self, device: torch.device) -> "World":
        """The same world with its tensors on a device."""

        def moved(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.to(device)

        return replace(
            self,
            train=self.train.to(device),
            validation=self.validation.to(device),
            test=self.test.to(device),
            features={n: v.to(device) for n, v in self.features.items()},
            candidates=moved(self.candidates),
            learners=moved(self.learners),
            attributes={n: v.to(device) for n, v in self.attributes.items()},
        )

    @cached_property
    def eligible(self) -> Tensor:
        """Clients that train and have something to train on, ascending."""
        can = self.train.counts > 0
        can[self.honest :] = True
        return (can if self.learners is None else can & self.learners).nonzero()[:, 0]

    @property
    def honest(self) -> int:
        """How many clients are not malicious: the first ones."""
        return self.shape.clients - self.malicious

    @cached_property
    def pool(self) -> Tensor:
        """Items that occur in somebody's training data, ascending."""
        return self.popularity.nonzero()[:, 0]

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
