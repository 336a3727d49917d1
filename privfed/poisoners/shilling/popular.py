"""Popular filler items: the popular attack, and the bandwagon attack."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.adversary import Knowledge
from privfed.errors import SettingsError
from privfed.poisoners.shilling.average import Loose
from privfed.poisoners.shilling.profile import Shilling, highest, others
from privfed.poisoning import Plot


def by_popularity(plot: Plot) -> Tensor:
    """Items beside the targets, the most popular first."""
    assert plot.popularity is not None, "granted"
    order = plot.popularity.argsort(descending=True, stable=True)
    return order[~torch.isin(order, plot.targets)]


@dataclass(frozen=True)
class PopularAttack(Shilling):
    """The targets among the most popular items, which get the highest rating."""

    knows = Knowledge(popularity=True)
    paper = "O'Mahony et al., ACM TOIT 2004; baseline of Rong et al., ICDE 2022"

    def filler(self, plot: Plot, size: int) -> Sequence[Tensor]:
        return [by_popularity(plot)[:size].expand(len(plot.mine), -1)]

    def ratings(self, plot: Plot, parts: Sequence[Tensor]) -> Sequence[Tensor]:
        return [highest(plot, part) for part in parts]


@dataclass(frozen=True)
class Bandwagon(Loose):
    """The targets, a few popular items and random ones.

    A share ``popular`` of a client's interactions, rounded down, is drawn from the
    share ``head`` of items that are most popular and gets the highest rating; the
    others are random and rated as in the random attack.
    """

    popular: float = 0.1
    head: float = 0.1

    knows = Knowledge(popularity=True)
    paper = "Mobasher et al., ACM TOIT 2007; baseline of Rong et al., ICDE 2022"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("popular", "head"):
            if not 0 < getattr(self, name) <= 1:
                value = getattr(self, name)
                raise ValueError(f"{name} must be above 0 and at most 1, got {value}")

    def filler(self, plot: Plot, size: int) -> Sequence[Tensor]:
        head = by_popularity(plot)[: int(self.head * plot.items)]
        few = min(int(self.popular * self.positives), size)
        if few > len(head):
            raise SettingsError(
                f"cannot draw {few} popular items from a head of {len(head)}; "
                "raise head or lower popular"
            )
        key = plot.stream.of("popular").bits(plot.mine[:, None], head)
        liked = head[key.argsort(dim=1, stable=True)[:, :few]]
        return [liked, others(plot, liked, size - few)]

    def ratings(self, plot: Plot, parts: Sequence[Tensor]) -> Sequence[Tensor]:
        liked, rest = parts
        return [highest(plot, liked), self.guessed(plot, rest)]
