"""What poisoners that promote items have in common."""

from dataclasses import dataclass

from privfed.data.world import Pairs
from privfed.interfaces import Method
from privfed.poisoners.crafting.cover import cover
from privfed.poisoners.crafting.scorer import can_score
from privfed.poisoning import Plot, Poisoner


@dataclass(frozen=True)
class Promoter(Poisoner):
    """A poisoner whose devices hold the targets alone, and whose uploads it makes."""

    aim = "promote"

    def data(self, plot: Plot) -> Pairs:
        """The targets alone; what training on them sends is replaced."""
        return cover(plot, None, 0)


@dataclass(frozen=True)
class ByScore(Promoter):
    """A poisoner that promotes items through how a method scores them."""

    def misfit(self, method: Method) -> str:
        if can_score(method):
            return ""
        return "the method does not say how it scores an item"
