"""What a poisoner is: whom it owns, what it is granted, what its clients send."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from privfed.adversary import Knowledge, Prior
from privfed.data.world import Pairs, Ragged, Task
from privfed.interfaces import Method, State
from privfed.messages import Uploads
from privfed.seeds import Stream

Aim = Literal["promote", "degrade"]


@dataclass(frozen=True, kw_only=True)
class Plot(Prior):
    """What a poisoner has before the first round.

    ``shape`` counts its own clients too. What a threat model does not grant is None.
    """

    mine: Tensor  # (malicious,) its clients: the last ones, ascending
    targets: Tensor  # (targets,) items to promote; empty where it only degrades
    public: Ragged | None = None  # the known share of everybody's interactions
    item_means: Tensor | None = None  # (items,) mean rating


@dataclass(frozen=True)
class Sortie:
    """What its clients of one round have at hand.

    ``uploads`` is what the method's ordinary training on their made-up data came to,
    before any defense; nothing moved in it where the poisoner does not train.
    """

    round: int
    clients: Tensor  # (here,) ids, ascending
    model: State  # as devices received it
    own: State  # private tensors of these clients before the round, (here, ...)
    uploads: Uploads  # of exactly these clients
    stream: Stream
    honest: Uploads | None = None  # as sent; where all uploads are granted


class Poisoner(ABC):
    """An adversary that owns clients and decides what lies on them and what they send.

    It sees the models that its clients are sent, and nothing else of a run but what
    ``knows`` and ``public_share`` grant.
    """

    aim: ClassVar[Aim]
    knows: ClassVar[Knowledge] = Knowledge()
    tasks: ClassVar[tuple[Task, ...]] = ("ranking",)
    trains: ClassVar[bool] = True  # whether it needs what ordinary training comes to
    paper: ClassVar[str]

    @classmethod
    def means(cls) -> str:
        """What it sees and is granted, in words."""
        seen = "the models that its clients are sent"
        return "; is granted ".join(filter(None, [seen, cls.knows.words()]))

    def public_share(self) -> float:
        """The share of each client's interactions that it knows."""
        return 0.0

    def misfit(self, method: Method) -> str:
        """Why it cannot attack a method; empty where it can."""
        return ""

    def prepare(self, plot: Plot) -> "Poisoner":
        """The poisoner with everything derived from what it has."""
        return self

    @abstractmethod
    def data(self, plot: Plot) -> Pairs:
        """Made-up interactions on its devices, for all rounds.

        ``sender`` is a position in ``plot.mine``, ascending; an item comes once for
        each. Where tasks are rankings the label is 1, else a rating.
        """

    def start(self, plot: Plot) -> State:
        """What it remembers before the first round."""
        return {}

    def forge(self, memory: State, sortie: Sortie, plot: Plot) -> tuple[State, Uploads]:
        """What it remembers, and what its clients upload.

        Uploads have the tables, the tensors and the clients of ``sortie.uploads``.
        """
        return memory, sortie.uploads
