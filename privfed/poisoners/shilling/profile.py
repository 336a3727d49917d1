"""What shilling profiles have in common: the targets, rated highest, and filler.

Lam and Riedl, Shilling recommender systems for fun and profit, WWW 2004; Mobasher,
Burke, Bhaumik and Williams, Toward trustworthy recommender systems, ACM TOIT 2007.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from privfed.checks import at_least
from privfed.data.world import Pairs, Task
from privfed.errors import SettingsError
from privfed.poisoners.crafting.cover import laid
from privfed.poisoners.crafting.scale import ends
from privfed.poisoners.shilling.drawing import drawn
from privfed.poisoning import Aim, Plot, Poisoner


@dataclass(frozen=True)
class Shilling(Poisoner):
    """Poisons data alone: devices train as told, on made-up interactions.

    A client has ``positives`` interactions, the targets among them. Where a method
    learns from ratings the targets get the highest one; else all of them are positives.
    """

    positives: int = 30

    aim: ClassVar[Aim] = "promote"
    tasks: ClassVar[tuple[Task, ...]] = ("ranking", "rating")

    def __post_init__(self) -> None:
        at_least(self, 2, "positives")

    @abstractmethod
    def filler(self, plot: Plot, size: int) -> Sequence[Tensor]:
        """Items beside the targets in parts (clients, any), ``size`` in all."""

    @abstractmethod
    def ratings(self, plot: Plot, parts: Sequence[Tensor]) -> Sequence[Tensor]:
        """Ratings of every part of ``filler``, each of its part's shape."""

    def data(self, plot: Plot) -> Pairs:
        parts = self.filler(plot, self._room(plot))
        targets = plot.targets.expand(len(plot.mine), -1)
        item = torch.cat([targets, *parts], 1)
        label = torch.ones(item.shape)
        if plot.method.task == "rating":
            label = torch.cat([highest(plot, targets), *self.ratings(plot, parts)], 1)
        return laid(plot, item, label)

    def _room(self, plot: Plot) -> int:
        """Filler items of one client. Raises SettingsError where there are none."""
        targets, items = len(plot.targets), plot.items
        if targets < self.positives <= items:
            return self.positives - targets
        raise SettingsError(
            f"positives must be above the number of targets, {targets}, and at most "
            f"that of items, {items}, got {self.positives}"
        )


def highest(plot: Plot, item: Tensor) -> Tensor:
    """The highest rating for each of some items."""
    return torch.full(item.shape, ends(plot.shape)[1])


def others(plot: Plot, taken: Tensor, size: int) -> Tensor:
    """Random items of each client, beside the targets and its own ``taken`` ones."""
    gone = torch.cat([plot.targets.expand(len(plot.mine), -1), taken], 1)
    stream = plot.stream.of("filler")
    return drawn(stream, plot.mine, plot.items, gone, size)


def nothing(plot: Plot) -> Tensor:
    """No items of each client."""
    return plot.mine.new_zeros(len(plot.mine), 0)
