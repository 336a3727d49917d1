"""The kinds of part that can be added to privfed."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from privfed.accounting.guarantee import Guarantee
from privfed.data.cohort import Cohort
from privfed.data.world import Pairs, Shape, Task
from privfed.devices.batches import bucket
from privfed.devices.dpsgd import InteractionDP
from privfed.devices.penalty import Penalty
from privfed.messages import Rows, Spent, Total, Uploads
from privfed.sampling import Sampling
from privfed.seeds import Stream
from privfed.views import View

START = ".start"  # a private table is kept as its change from this public start
SERVER = "server."  # what the server keeps to itself begins with this
State = Mapping[str, Tensor]  # everything that a part keeps, so that it can be saved


def broadcast(model: State) -> State:
    """What devices may see of a model: all but what the server keeps to itself."""
    return {name: v for name, v in model.items() if not name.startswith(SERVER)}


@dataclass(frozen=True)
class Trained:
    """What one shard's local training leaves behind.

    ``private`` holds the new value of whole private tensors, ``private_rows``
    the rows of private tables that moved.
    """

    private: State
    private_rows: Mapping[str, Rows]
    uploads: Uploads
    loss: Tensor  # (clients,) mean loss of the last local step


@dataclass(frozen=True)
class Round:
    """The public facts of one round, and its draws.

    ``always`` is the stream of draws that are made once and kept, the same in
    every round.
    """

    number: int
    stream: Stream
    always: Stream
    privacy: InteractionDP | None = None
    penalties: Sequence[Penalty] = ()


class Method(ABC):
    """A federated recommender, written for a whole shard of clients at once.

    ``model`` is what the server holds; devices receive all of it but what begins
    with ``SERVER``. ``private`` stays on the devices and has clients as its first
    axis. Neither is changed in place. A method derives from one class that says what
    it predicts (``Ranker``, ``Rater``, ``Chooser``) and from one that says what its
    server learns from (``FromTotal``, ``FromUploads``).
    """

    task: ClassVar[Task]
    keeps: ClassVar[str]
    sends: ClassVar[str]
    needs: ClassVar[str]  # what the server must see
    paper: ClassVar[str]
    flat: ClassVar[bool] = False  # pads no client: any sizes may share a shard
    negatives: int  # sampled for each positive, a public hyper-parameter

    @abstractmethod
    def init(self, shape: Shape, stream: Stream) -> tuple[State, State]:
        """Return the first (model, private).

        What all clients start with alike may be an expanded view.
        """

    @abstractmethod
    def train(
        self, model: State, private: State, cohort: Cohort, round: Round
    ) -> Trained:
        """Train each client on its own data; return what stays and what leaves."""

    @abstractmethod
    def footprint(self, shape: Shape, positives: int) -> int:
        """Bytes that training one client of so many (padded) positives needs."""

    def room(self, counts: Tensor) -> Tensor:
        """Room for each client's positives, (clients,); one shard has one size of it.

        Where what a client computes depends on nobody it is padded with, sizes may be
        coarse: fewer shards, each longer.
        """
        return bucket(counts)

    def bytes_down(self, model: State) -> int:
        """Bytes that each client of a round receives."""
        return sum(
            value.numel() * value.element_size()
            for name, value in broadcast(model).items()
            if not name.endswith(START)  # follows from a public seed: never sent
        )

    def warnings(self) -> Sequence[str]:
        """What a reader of this method's figures must be told."""
        return ()


class Ranker(Method):
    """A method that ranks items."""

    task = "ranking"

    @abstractmethod
    def score(self, model: State, private: State, cohort: Cohort) -> Tensor:
        """Score every item for each client, (clients, items)."""


class LocalView(Ranker):
    """A method whose clients can predict with what they trained in a round."""

    @property
    @abstractmethod
    def local_view(self) -> bool:
        """Whether they do."""

    @abstractmethod
    def score_locally(
        self, model: State, private: State, cohort: Cohort, local: Mapping[str, Rows]
    ) -> Tensor:
        """Scores (clients, items); ``local`` is how each client's own rows moved."""


class Rater(Method):
    """A method that predicts ratings."""

    task = "rating"
    negatives = 0

    @abstractmethod
    def predict(
        self, model: State, private: State, cohort: Cohort, pairs: Pairs
    ) -> Tensor:
        """Predict the rating of each of a cohort's pairs, (pairs,).

        Reads the pairs' sender and item, never their label.
        """


class Chooser(Method):
    """A method that predicts which item is chosen in a context."""

    task = "choice"
    negatives = 0

    @abstractmethod
    def choose(
        self, model: State, private: State, cohort: Cohort, pairs: Pairs
    ) -> Tensor:
        """Score every item in the context of each of a cohort's pairs, (pairs, items).

        ``cohort`` holds what its clients adapt to. Reads the pairs' sender and
        context, never their item.
        """


class FromTotal(Method):
    """A method whose server needs no more than the sum of a round's uploads."""

    needs = "the total"

    @abstractmethod
    def apply(self, model: State, total: Total) -> State:
        """Learn from one round's total."""


class FromUploads(Method):
    """A method whose server needs every single upload, in the clear."""

    needs = "single uploads"

    @abstractmethod
    def learn(self, model: State, uploads: Uploads, stream: Stream) -> State:
        """Learn from all uploads of one round."""


class Invites(Method):
    """A method that chooses a round's clients by what the server has learned."""

    @abstractmethod
    def invite(self, model: State, eligible: Tensor, stream: Stream) -> Tensor:
        """Clients of the next round, in ascending order."""


class PerInteraction(Method):
    """A method that can train with every loss term confined to one interaction."""

    @abstractmethod
    def private_training(self) -> "Method":
        """Return the method in that form."""


class Penalized(Method):
    """A method whose local loss takes further terms, of the round's ``penalties``."""


@dataclass(frozen=True)
class Plan:
    """What is public about a run before it starts; guarantees are computed on it."""

    shape: Shape
    rounds: int
    participations: int  # the most rounds that any one client takes part in
    mean_interactions: float
    method: Method
    clients: int  # who may take part
    sampling: Sampling

    @property
    def largest_cohort(self) -> int:
        """The most clients that one round may have."""
        if self.sampling.kind in ("uniform", "queue", "epoch"):
            return min(self.sampling.clients_per_round, self.clients)
        return self.clients


@dataclass(frozen=True)
class Turn:
    """What a step of a defense may read beside its input.

    ``stream`` is for this defense's draws in this step and round, ``memory`` what it
    keeps from round to round, ``model`` what the devices received. ``predict`` is how
    devices predict a cohort's pairs now, where their method predicts ratings.
    """

    number: int  # the round
    shape: Shape
    stream: Stream
    memory: State = field(default_factory=dict)
    model: State = field(default_factory=dict)
    predict: Callable[[Cohort, Pairs], Tensor] | None = None


class Facts:
    """What a defense or a channel says of itself, for the catalog."""

    hides: ClassVar[str]
    does_not_hide: ClassVar[str]
    unit: ClassVar[str] = "none: no guarantee"
    trust: ClassVar[str]
    cost: ClassVar[str]
    paper: ClassVar[str]


class Defense(Facts):
    """Up to five steps; a defense overrides the ones that it needs.

    ``in_training``, ``penalty``, ``on_data`` and ``on_upload`` run on the devices,
    first defense first; ``on_total`` runs where the sum is, last defense first. All
    are pure: what changes from round to round is a memory, ``start`` and then what
    ``learn`` returns. ``prepare`` returns the defense with everything derived from the
    plan.
    """

    bounds_upload: ClassVar[bool] = False  # rests on the norm of the upload it makes

    def prepare(self, plan: Plan) -> "Defense":
        return self

    def method(self, method: Method) -> Method:
        """The method as this defense needs it."""
        return method

    def in_training(self) -> InteractionDP | None:
        """How local training itself is made private."""
        return None

    def penalty(self, turn: Turn) -> Penalty | None:
        """What local training's loss has in addition."""
        return None

    def on_data(self, cohort: Cohort, turn: Turn) -> Cohort:
        return cohort

    def on_upload(self, uploads: Uploads, turn: Turn) -> Uploads:
        return uploads

    def on_total(self, total: Total, turn: Turn) -> Total:
        return total

    def start(self) -> State:
        """The memory before the first round."""
        return {}

    def learn(self, total: Total, turn: Turn) -> State:
        """The memory after a round; reads what ``on_total`` reads."""
        return turn.memory

    def sends_every_row(self) -> bool:
        """Whether whole tables leave the devices, which decides the memory needed."""
        return False

    def guarantee(self) -> Guarantee:
        raise NotImplementedError(f"{type(self).__name__} states no guarantee")


@dataclass(frozen=True)
class Opening:
    """The public facts of a round that a channel carries.

    ``clients`` is the whole cohort; its uploads come in shards, in any order.
    """

    number: int
    shape: Shape
    clients: Tensor  # (cohort,)
    stream: Stream


@dataclass(frozen=True)
class Rejected:
    """What a rule that filters did not keep of a round.

    A vote is a client's whole upload or, where items are voted on one by one, a row.
    """

    clients: Tensor  # (cohort,)
    cast: Tensor  # (cohort,) votes
    dropped: Tensor  # (cohort,) votes not kept


@dataclass(frozen=True)
class Delivered:
    """What a channel hands over at the end of a round.

    ``rejected`` is None where the channel filters nobody.
    """

    total: Total
    views: Sequence[View]
    spent: Spent
    rejected: Rejected | None = None


class Channel(Facts, ABC):
    """Carries uploads to the server; decides what the server sees on the way.

    ``opened`` is a round's running value; the channel itself has no state.
    """

    sums: ClassVar[bool] = True  # whether the total is the uploads' weighted sum

    @property
    @abstractmethod
    def shows(self) -> Sequence[type[View]]:
        """What somebody other than the sender sees of a round."""

    def ready(self, plan: Plan) -> AbstractContextManager["Channel"]:
        """The channel with keys and processes, for one run."""
        return nullcontext(self)

    def sends_every_row(self) -> bool:
        """Whether whole tables leave the devices, which decides the memory needed."""
        return False

    @abstractmethod
    def open(self, opening: Opening) -> Any:
        """Begin a round."""

    @abstractmethod
    def send(self, opened: Any, uploads: Uploads) -> tuple[Any, View]:
        """Deliver one shard's uploads; return what the server saw of them."""

    @abstractmethod
    def close(self, opened: Any) -> Delivered:
        """End the round."""

    def guarantee(self) -> Guarantee | None:
        """What it promises; None where the server sees every upload as it was sent."""
        return None
