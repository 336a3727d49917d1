"""Interactions of a population, laid end to end."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from privfed.errors import SettingsError

TRAIN, VALIDATION, TEST = 0, 1, 2


class DataError(SettingsError):
    """Unusable data: one line that names the file, the line and the mend."""


@dataclass(frozen=True)
class Scale:
    """The grid that explicit ratings live on."""

    low: float
    high: float
    step: float


@dataclass(frozen=True, eq=False)
class Interactions:
    """Who interacted with what.

    Rows are sorted by user and, within a user, by time where it is known, else in
    file order. ``rating`` is None for implicit data, ``time`` None where nothing
    is dated (-1 marks a single undated row), ``part`` None unless the source
    fixes the split (0 train, 1 validation, 2 test).
    """

    name: str
    users: int
    items: int
    user: Tensor  # (interactions,) int64, ascending
    item: Tensor  # (interactions,) int64
    rating: Tensor | None = None  # (interactions,) float32
    time: Tensor | None = None  # (interactions,) int64
    part: Tensor | None = None  # (interactions,) int8
    scale: Scale | None = None
    user_ids: tuple[str, ...] = ()  # ids as the source spells them
    item_ids: tuple[str, ...] = ()
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by user
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by item
    features: Mapping[str, Tensor] = field(default_factory=dict)  # (items, width)
    images: Mapping[int, bytes] = field(default_factory=dict)  # item -> encoded image
    candidates: Tensor | None = None  # (users, 99 or 100): a protocol's negatives
    choices: Tensor | None = None  # (interactions, width): the context of each choice

    def __len__(self) -> int:
        return len(self.user)

    @property
    def context(self) -> Tensor:
        """What was known at each choice, of width 0 where nothing is recorded."""
        return self.choices if self.choices is not None else torch.zeros(len(self), 0)

    @cached_property
    def offsets(self) -> Tensor:
        """Where each user's rows begin and, last, the end: (users + 1,)."""
        counts = torch.bincount(self.user, minlength=self.users)
        return torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])

    @cached_property
    def fingerprint(self) -> str:
        """Content hash: equal data has equal fingerprints on any machine."""
        digest = hashlib.sha256(f"{self.users} {self.items}".encode())
        for tensor in (
            self.user,
            self.item,
            self.rating,
            self.time,
            self.part,
            self.choices,
        ):
            if tensor is not None:
                digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
        for modality in sorted(self.features):
            digest.update(modality.encode())
            digest.update(self.features[modality].contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]
