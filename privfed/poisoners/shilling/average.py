"""Random filler items: the random attack, and the average attack."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.adversary import Knowledge
from privfed.checks import not_negative
from privfed.errors import SettingsError
from privfed.poisoners.crafting.scale import ends, on_scale
from privfed.poisoners.shilling.drawing import anywhere, around
from privfed.poisoners.shilling.profile import Shilling, nothing, others
from privfed.poisoning import Plot


@dataclass(frozen=True)
class Loose(Shilling):
    """Profiles with filler items that nothing is known of.

    Filler ratings are drawn around ``mean``, the data's mean rating, with
    ``deviation``, and rounded to the scale; where no mean is given, uniformly from the
    scale. Neither is read where a method learns from positives alone.
    """

    mean: float | None = None
    deviation: float = 1.1

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative(self, "deviation")

    def guessed(self, plot: Plot, item: Tensor) -> Tensor:
        """Ratings of items that nothing is known of. Raises SettingsError."""
        stream, (low, high) = plot.stream.of("ratings"), ends(plot.shape)
        if self.mean is None:
            return anywhere(stream, plot.mine, item.shape[1], plot.shape)
        if not low <= self.mean <= high:
            raise SettingsError(
                f"mean must lie on the rating scale, {low:g} to {high:g}, "
                f"got {self.mean:g}"
            )
        size = item.shape[1]
        draws = around(stream, plot.mine, size, self.mean, self.deviation)
        return on_scale(draws, plot.shape)


@dataclass(frozen=True)
class RandomAttack(Loose):
    """The targets among random items: needs to know nothing."""

    paper = "Lam and Riedl, WWW 2004 (RandomBot); baseline of Rong et al., ICDE 2022"

    def filler(self, plot: Plot, size: int) -> Sequence[Tensor]:
        return [others(plot, nothing(plot), size)]

    def ratings(self, plot: Plot, parts: Sequence[Tensor]) -> Sequence[Tensor]:
        return [self.guessed(plot, part) for part in parts]


@dataclass(frozen=True)
class AverageAttack(Shilling):
    """The targets among random items, each rated as it is on average.

    An item whose mean is not known, for nobody rated it, gets the mean of the others.
    Where a method learns from positives alone it is the random attack.
    """

    knows = Knowledge(ratings=True)
    paper = "Lam and Riedl, WWW 2004 (AverageBot)"

    def filler(self, plot: Plot, size: int) -> Sequence[Tensor]:
        return [others(plot, nothing(plot), size)]

    def ratings(self, plot: Plot, parts: Sequence[Tensor]) -> Sequence[Tensor]:
        means = plot.item_means
        assert means is not None, "granted"
        some = means[means.isfinite()]
        middle = some.mean() if len(some) else means.new_tensor(ends(plot.shape)).mean()
        known = torch.where(means.isfinite(), means, middle).float()
        return [on_scale(known[part], plot.shape) for part in parts]
