"""Poisoners that only degrade: what lies on their devices."""

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from privfed.checks import at_least
from privfed.data.world import Pairs, Task
from privfed.poisoners.crafting.cover import cover
from privfed.poisoners.crafting.scale import ends, on_scale
from privfed.poisoning import Aim, Plot, Poisoner


@dataclass(frozen=True)
class Degrader(Poisoner):
    """A poisoner whose devices hold ``profile`` made-up interactions each.

    Items are drawn uniformly, and so are ratings where the method learns ratings.
    """

    profile: int = 30

    aim: ClassVar[Aim] = "degrade"
    tasks: ClassVar[tuple[Task, ...]] = ("ranking", "rating")

    def __post_init__(self) -> None:
        at_least(self, 1, "profile")

    def data(self, plot: Plot) -> Pairs:
        pairs = cover(plot, None, self.profile)
        if plot.method.task != "rating":
            return pairs
        return replace(pairs, label=_ratings(plot, pairs))


def _ratings(plot: Plot, pairs: Pairs) -> Tensor:
    """Drawn uniformly from the grid of the scale, (pairs,)."""
    low, high = ends(plot.shape)
    client = plot.mine[pairs.sender]
    drawn = plot.stream.of("ratings").uniform(client, pairs.item)
    return on_scale(low + drawn.float() * (high - low), plot.shape)
