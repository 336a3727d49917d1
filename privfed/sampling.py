"""Which clients take part in a round. The schedule is public and looks at no data."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from privfed.seeds import Seeds


@dataclass(frozen=True)
class Sampling:
    """Client sampling.

    ``all``: everyone, every round. ``uniform``: ``clients_per_round`` at random
    without replacement. ``queue``: a shuffled list; the first leave for the end.
    With ``rest`` nobody is taken in two consecutive rounds, as far as the
    population allows.
    """

    kind: Literal["all", "uniform", "queue"] = "all"
    clients_per_round: int = 100
    rest: bool = False

    def __post_init__(self) -> None:
        if self.clients_per_round < 1:
            raise ValueError(
                f"clients_per_round must be at least 1, got {self.clients_per_round}"
            )

    def cohort(self, round: int, eligible: Tensor, seeds: Seeds) -> Tensor:
        """The clients of one round, in ascending order."""
        count = min(self.clients_per_round, len(eligible))
        if self.kind == "all" or count == len(eligible):
            return eligible
        if self.kind == "queue":
            shuffled = eligible[self._shuffle(eligible, 0, seeds)]
            at = (round * count + torch.arange(count)) % len(eligible)
            return shuffled[at].sort().values
        if not self.rest or 2 * count > len(eligible):
            return eligible[self._shuffle(eligible, round, seeds)[:count]].sort().values
        return self._resting(round, eligible, count, seeds)

    def _resting(
        self, round: int, eligible: Tensor, count: int, seeds: Seeds
    ) -> Tensor:
        last = eligible[:0]
        for r in range(round + 1):  # each round depends on the one before
            order = eligible[self._shuffle(eligible, r, seeds)]
            last = order[~torch.isin(order, last)][:count]
        return last.sort().values

    def _shuffle(self, eligible: Tensor, round: int, seeds: Seeds) -> Tensor:
        stream = seeds("cohort", round)
        return stream.bits(eligible, torch.zeros_like(eligible)).argsort(stable=True)

    def participations(self, rounds: int, eligible: Tensor, seeds: Seeds) -> int:
        """The most rounds that any one client takes part in."""
        if self.kind == "all" or not len(eligible) or rounds == 0:
            return rounds
        seen = [self.cohort(r, eligible, seeds) for r in range(rounds)]
        return int(torch.bincount(torch.cat(seen)).max())
