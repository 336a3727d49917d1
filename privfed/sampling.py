"""Which clients take part in a round, by a public rule that looks at no data.

Who came may be known as well, but where a guarantee says that its sampling hides it.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from privfed.checks import at_least
from privfed.data.cohort import Cohort, cohort_of, cohort_of_pairs
from privfed.data.world import World
from privfed.seeds import Seeds


@dataclass(frozen=True)
class Sampling:
    """Client sampling.

    ``all``: everyone, every round. ``uniform``: ``clients_per_round`` at random
    without replacement. ``poisson``: each with the same chance, whoever else comes,
    so that ``clients_per_round`` is what to expect; a round may be empty. ``queue``: a
    shuffled list; the first leave for the end. ``epoch``: everyone once, in rounds of
    ``clients_per_round``, the last one shorter; then all are shuffled anew.
    With ``rest`` nobody of ``uniform`` is taken in two consecutive rounds, as far as
    the population allows. ``interactions``: everybody's training interactions are
    shuffled together, anew when they run out, and a round takes the next
    ``interactions_per_round``; their clients train on these alone (MetaMF's released
    code).
    """

    kind: Literal["all", "uniform", "poisson", "queue", "epoch", "interactions"] = "all"
    clients_per_round: int = 100
    interactions_per_round: int = 64
    rest: bool = False

    def __post_init__(self) -> None:
        at_least(self, 1, "clients_per_round", "interactions_per_round")

    def cohort(self, round: int, world: World, seeds: Seeds) -> Cohort:
        """One round's clients and what they train on."""
        if self.kind != "interactions":
            return cohort_of(world, self.clients(round, world.eligible, seeds))
        size = self.interactions_per_round
        epoch, number = divmod(round, self._rounds_an_epoch(world))
        order = _shuffled(world, seeds, epoch)
        return cohort_of_pairs(world, order[number * size :][:size].sort().values)

    def _rounds_an_epoch(self, world: World) -> int:
        count = int(world.train.counts[world.eligible].sum())
        return -(-count // self.interactions_per_round)

    def clients(self, round: int, eligible: Tensor, seeds: Seeds) -> Tensor:
        """The clients of one round, in ascending order."""
        count = min(self.clients_per_round, len(eligible))
        if self.kind == "all" or count == len(eligible):
            return eligible
        if self.kind == "queue":
            shuffled = eligible[_shuffle(eligible, 0, seeds)]
            at = (round * count + torch.arange(count)) % len(eligible)
            return shuffled[at].sort().values
        if self.kind == "epoch":
            epoch, number = divmod(round, -(-len(eligible) // count))
            order = eligible[_shuffle(eligible, epoch, seeds)]
            return order[number * count :][:count].sort().values
        if self.kind == "poisson":
            drawn = seeds("cohort", round).uniform(eligible, torch.zeros_like(eligible))
            return eligible[drawn < count / len(eligible)]
        if not self.rest or 2 * count > len(eligible):
            return eligible[_shuffle(eligible, round, seeds)[:count]].sort().values
        return self._resting(round, eligible, count, seeds)

    def _resting(
        self, round: int, eligible: Tensor, count: int, seeds: Seeds
    ) -> Tensor:
        last = eligible[:0]
        for r in range(round + 1):  # each round depends on the one before
            order = eligible[_shuffle(eligible, r, seeds)]
            last = order[~torch.isin(order, last)][:count]
        return last.sort().values

    def participations(self, rounds: int, world: World, seeds: Seeds) -> int:
        """The most rounds that any one client takes part in, or a bound on them."""
        eligible = world.eligible
        if self.kind == "all" or not len(eligible) or rounds == 0:
            return rounds
        if self.kind == "interactions":
            epochs = -(-rounds // self._rounds_an_epoch(world))
            return min(rounds, epochs * int(world.train.counts[eligible].max()))
        seen = [self.clients(r, eligible, seeds) for r in range(rounds)]
        return max(1, int(torch.bincount(torch.cat(seen), minlength=1).max()))


@lru_cache(maxsize=1)  # one order is used by many rounds
def _shuffle(eligible: Tensor, round: int, seeds: Seeds) -> Tensor:
    stream = seeds("cohort", round)
    return stream.bits(eligible, torch.zeros_like(eligible)).argsort(stable=True)


@lru_cache(maxsize=1)  # one epoch is used by many rounds
def _shuffled(world: World, seeds: Seeds, epoch: int) -> Tensor:
    """Places of all training interactions of clients that train, in random order."""
    can = torch.zeros(world.shape.clients, dtype=torch.bool)
    can[world.eligible] = True
    at = can[world.train.owner].nonzero()[:, 0]
    key = seeds("interactions", epoch).bits(torch.zeros_like(at), at)
    return at[key.argsort(stable=True)]
