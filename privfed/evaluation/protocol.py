"""How held-out items are ranked."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from privfed.data.world import World
from privfed.metrics.utility import draw_candidates
from privfed.seeds import Seeds


@dataclass(frozen=True)
class Protocol:
    """Ranking against ``negatives`` sampled items (99 or 100), or all where "full".

    ``at`` are the cut-offs K; the first is the one that runs are selected by. Clients
    are measured ``every`` so many rounds, whatever the task.
    """

    ranking: Literal["sampled", "full"] = "sampled"
    negatives: int = 99
    at: tuple[int, ...] = (10, 5, 20)
    every: int = 5

    def __post_init__(self) -> None:
        if not self.at or min(self.at) < 1:
            raise ValueError(f"at needs cut-offs of 1 or more, got {self.at}")
        for name in ("negatives", "every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")

    def describe(self, world: World) -> str:
        """The words that a table puts beside its figures."""
        if self.ranking == "full":
            return "full ranking"
        if world.candidates is not None:
            return f"{world.candidates.shape[1]} given negatives"
        return f"{self.negatives} sampled negatives"

    def candidates(self, world: World, seeds: Seeds) -> Tensor | None:
        """Negatives of each client, (clients, negatives), or None for all items."""
        if self.ranking == "full":
            return None
        if world.candidates is not None:
            return world.candidates
        return draw_candidates(world, self.negatives, seeds("candidates"))
