"""Poisoners that have read every honest upload of a round before they send theirs."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from privfed.adversary import Knowledge
from privfed.interfaces import State
from privfed.messages import Uploads, reordered
from privfed.poisoners.untargeted.made_up import Degrader
from privfed.poisoning import Plot, Sortie


@dataclass(frozen=True)
class Omniscient(Degrader):
    """A poisoner that answers the honest uploads; silent where there are none."""

    trains: ClassVar[bool] = False
    knows: ClassVar[Knowledge] = Knowledge(uploads=True)

    @abstractmethod
    def answer(self, honest: Uploads, sortie: Sortie, plot: Plot) -> Uploads:
        """What its clients upload; ``honest`` are in the order of clients."""

    def forge(self, memory: State, sortie: Sortie, plot: Plot) -> tuple[State, Uploads]:
        seen = sortie.honest
        if seen is None or not len(seen.clients):
            return memory, sortie.uploads
        ordered = reordered(seen, seen.clients.argsort())  # the same bits in any shards
        return memory, self.answer(ordered, sortie, plot)
