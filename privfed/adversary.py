"""What an adversary is: what it is granted, what it watches, what it claims."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from privfed.data.attributes import Labels
from privfed.data.world import Ragged, Shape, Task
from privfed.guesses import Guess
from privfed.interfaces import Defense, Method, State
from privfed.seeds import Stream
from privfed.views import View


@dataclass(frozen=True)
class Knowledge:
    """What a threat model grants beside the views and the public settings."""

    popularity: bool = False
    features: bool = False
    profiles: bool = False
    attributes: bool = False
    ratings: bool = False
    uploads: bool = False

    def words(self) -> str:
        """What is granted, as a list in words."""
        return " and ".join(
            told for name, told in _GRANTS.items() if getattr(self, name)
        )


_GRANTS = {
    "popularity": "the items' popularity",
    "features": "the item features",
    "profiles": "the interactions of every candidate",
    "attributes": "the attributes of other users",
    "ratings": "the items' mean ratings",
    "uploads": "what all others upload in a round, before it sends its own",
}


@dataclass(frozen=True)
class Prior:
    """What an adversary knows before the first round, and nothing learned since.

    The algorithm is public with its settings, and so are the defenses with theirs.
    What a threat model does not grant is None or empty: ``profiles`` are the
    interactions of clients that may have taken part, ``attributes`` those of users
    other than the ones to be guessed.
    """

    shape: Shape
    stream: Stream
    method: Method
    defenses: Sequence[Defense] = ()
    popularity: Tensor | None = None  # (items,)
    features: Mapping[str, Tensor] = field(default_factory=dict)  # (items, width)
    profiles: Ragged | None = None
    attributes: Mapping[str, Labels] = field(default_factory=dict)

    @property
    def clients(self) -> int:
        return self.shape.clients

    @property
    def items(self) -> int:
        return self.shape.items

    @property
    def negatives(self) -> int:
        """Sampled for each positive."""
        return self.method.negatives


class Attack(ABC):
    """A passive adversary: watches views, then guesses.

    It is handed views of the types in ``sees``, all of which it needs, and nothing
    else.
    """

    sees: ClassVar[tuple[type[View], ...]]
    knows: ClassVar[Knowledge] = Knowledge()
    recovers: ClassVar[str] = "interacted items"
    tasks: ClassVar[tuple[Task, ...]] = ("ranking", "rating", "choice")
    paper: ClassVar[str]

    @classmethod
    def means(cls) -> str:
        """What it watches and is granted, in words."""
        told = ", ".join(kind.__name__ for kind in cls.sees)
        return "; is granted ".join(filter(None, [told, cls.knows.words()]))

    def misfit(self, method: Method) -> str:
        """Why it says nothing about a method; empty where it does."""
        return ""

    def prepare(self, prior: Prior) -> "Attack":
        """The attack with everything derived from the prior."""
        return self

    @abstractmethod
    def start(self, prior: Prior) -> State:
        """What it remembers before the first round."""

    @abstractmethod
    def observe(self, memory: State, view: View) -> State:
        """What it remembers after a view."""

    @abstractmethod
    def guess(self, memory: State, prior: Prior) -> Guess:
        """What it claims in the end.

        Where the attributes of other users are granted it is asked once for each
        fold of users, whose attributes are then unknown.
        """


@dataclass(frozen=True)
class NotApplicable:
    """An attack that cannot run here: a result, not a failure."""

    reason: str
