"""Filler items that those like who are to be shown the target: the segment attack."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from privfed.adversary import Knowledge
from privfed.poisoners.crafting.scale import ends
from privfed.poisoners.shilling.popular import by_popularity
from privfed.poisoners.shilling.profile import Shilling, highest, nothing, others
from privfed.poisoning import Plot


@dataclass(frozen=True)
class Segment(Shilling):
    """The targets among the most popular items of their segment.

    The segment is the share ``segment`` of items that are most alike the targets: by
    the mean cosine of their features over all modalities or, where items have none, by
    how close they stand in the order of popularity. Where a method learns from
    ratings, the share ``liked`` of a client's filler is of the segment and gets the
    highest rating, and random items get the lowest. Where it learns from positives
    alone nothing can be rated low: all filler is of the segment.
    """

    segment: float = 0.1
    liked: float = 0.5

    knows = Knowledge(popularity=True, features=True)
    paper = "Mobasher, Burke, Bhaumik and Williams, ACM TOIT 2007"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("segment", "liked"):
            if not 0 < getattr(self, name) <= 1:
                value = getattr(self, name)
                raise ValueError(f"{name} must be above 0 and at most 1, got {value}")

    def filler(self, plot: Plot, size: int) -> Sequence[Tensor]:
        whole = plot.method.task != "rating"
        few = size if whole else max(1, int(self.liked * size))
        near = nearest(plot, max(few, int(self.segment * plot.items)))
        order = by_popularity(plot)
        best = order[torch.isin(order, near)][:few].expand(len(plot.mine), -1)
        rest = nothing(plot) if whole else others(plot, best, size - few)
        return [best, rest]

    def ratings(self, plot: Plot, parts: Sequence[Tensor]) -> Sequence[Tensor]:
        best, rest = parts
        return [highest(plot, best), torch.full(rest.shape, ends(plot.shape)[0])]


def nearest(plot: Plot, size: int) -> Tensor:
    """The items most alike the targets, beside them; the more popular first in ties."""
    order = by_popularity(plot)
    alike = _alike(plot)[order]
    return order[alike.argsort(descending=True, stable=True)[:size]]


def _alike(plot: Plot) -> Tensor:
    """How alike the targets each item is, (items,)."""
    if not plot.features:
        return _as_popular(plot)
    sums = torch.zeros(plot.items, dtype=torch.float64)
    for rows in plot.features.values():
        unit = normalize(rows.double(), dim=1)
        # rounded: equal features tie exactly, whatever the order of summation
        sums += (unit @ unit[plot.targets].sum(0)).mul(1e9).round()
    return sums


def _as_popular(plot: Plot) -> Tensor:
    """Minus the distance to the nearest target in the order of popularity."""
    assert plot.popularity is not None, "granted"
    order = plot.popularity.argsort(descending=True, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(plot.items)
    return -(place[:, None] - place[plot.targets]).abs().amin(1)
