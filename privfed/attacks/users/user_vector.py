"""User vectors from uploads: of the layer that reads them, or the rows they scale."""

from dataclasses import dataclass

from privfed.adversary import Attack, Knowledge, Prior
from privfed.attacks.items.verdict import likely
from privfed.attacks.reading.public import Facts
from privfed.attacks.reading.vector_readers import (
    OfLayer,
    OfRatings,
    OfRows,
    OfTable,
    Reader,
)
from privfed.guesses import Vectors
from privfed.interfaces import Method, State
from privfed.surfaces import AlongUser, InnerProduct, ReadsUser, SendsUser
from privfed.views import ServerView, UploadsView, View

_ADAM = "Adam's steps on the device keep no direction of a row"


@dataclass(frozen=True)
class UserVector(Attack):
    """Private user vectors from uploads, in closed form.

    Of a method whose shared first layer reads the vector: from that layer's change,
    exactly where a device takes one step of SGD, nearly so where it takes several. Of
    a linear score head, BPR or factors of ratings: the direction in which the item
    rows point, of length one; the sign follows from positives being fewer or more
    popular, or from ratings being positive. Of a method whose clients send their own
    row of a table: that row, which the server has anyway. All uploads of a client
    count, each as much as it tells and ``earlier`` times as much for every later one;
    vectors of the first kind are carried forward by the steps that uploads reveal, and
    where noise hides where clients started they are taken to have started alike. A
    client whose uploads tell nothing is left out.
    """

    earlier: float = 0.5
    power: int = 30  # iterations for the direction of the rows, at most
    deviations: float = 3.0  # by which a row that tells a sign stands out of the noise

    sees = (ServerView, UploadsView)
    knows = Knowledge(popularity=True)
    recovers = "private user vectors"
    tasks = ("ranking", "rating")
    paper = "this project; one layer's inversion as in Geiping et al., NeurIPS 2020"

    def __post_init__(self) -> None:
        if not 0 <= self.earlier <= 1:
            raise ValueError(f"earlier must lie in [0, 1], got {self.earlier}")
        if self.power < 1:
            raise ValueError(f"power must be at least 1, got {self.power}")
        if not 0 <= self.deviations < float("inf"):
            raise ValueError(f"deviations must be 0 or more, got {self.deviations}")

    def misfit(self, method: Method) -> str:
        if isinstance(method, ReadsUser | AlongUser | SendsUser):
            return ""
        if isinstance(method, InnerProduct):
            return _ADAM if method.pass_(0).optimizer == "adam" else ""
        return "no part of this method's uploads is a number times the user's vector"

    def reader(self, prior: Prior) -> Reader:
        """Where the vector is read off."""
        method, clients = prior.method, prior.clients
        if isinstance(method, ReadsUser):
            return OfLayer(method.user_layer(), clients, self.earlier)
        if isinstance(method, AlongUser):
            return OfRows(
                method.user_direction(),
                clients,
                Facts.of(method, prior.shape),
                prior.negatives,
                self.earlier,
                self.power,
                self.deviations,
            )
        if isinstance(method, InnerProduct):
            return OfRatings(method, clients, self.earlier, self.deviations)
        assert isinstance(method, SendsUser)
        return OfTable(method.user_row(), clients)

    def prepare(self, prior: Prior) -> Attack:
        reader = self.reader(prior)
        return ReadyUserVector(self.earlier, self.power, self.deviations, reader)

    def start(self, prior: Prior) -> State:
        return {"share": likely(prior)}

    def observe(self, memory: State, view: View) -> State:
        raise TypeError("this attack reads a method's public facts: prepare it first")

    def guess(self, memory: State, prior: Prior) -> Vectors:
        reader = self.reader(prior)
        clients, vector = reader.vectors(memory)
        return Vectors(clients, reader.name, vector)


@dataclass(frozen=True)
class ReadyUserVector(UserVector):
    """The attack that knows where to read; made by ``UserVector.prepare``."""

    where: Reader | None = None

    def observe(self, memory: State, view: View) -> State:
        assert self.where is not None
        if isinstance(view, ServerView):
            return self.where.held(memory, view)
        assert isinstance(view, UploadsView)
        return self.where.sent(memory, view)
