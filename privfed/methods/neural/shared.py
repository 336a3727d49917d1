"""What the neural recommenders whose server keeps the users' rows have in common."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from privfed.checks import at_least
from privfed.data.cohort import Cohort
from privfed.data.world import Shape
from privfed.devices.batches import Samples, bucket, coarse, collect
from privfed.devices.negatives import Negatives
from privfed.interfaces import SERVER, Ranker, Round, State, broadcast
from privfed.messages import Rows, Uploads
from privfed.methods.neural import private as dp
from privfed.methods.neural.network import Fitted, LocalRule, Neural, fit
from privfed.seeds import Stream
from privfed.surfaces import SendsUser


@dataclass(frozen=True)
class SharedNeural(Ranker, SendsUser):
    """GMF, MLP or NeuMF, and a server that keeps the table of users.

    A client receives the item tables, the dense layers and its own user row, and
    trains them with Adam against ``negatives`` items for each of its own, drawn anew
    each round. ``layers`` are the widths of the MLP from its input on, ``width`` that
    of the product branch; embeddings start as N(0, ``std``^2). Under DP-SGD a device
    takes plain steps of ``learning_rate`` instead, which may be far larger than Adam's.
    """

    kind: Literal["gmf", "mlp", "neumf"] = "neumf"
    width: int = 8
    layers: tuple[int, ...] = (64, 32, 16, 8)
    std: float = 0.1
    learning_rate: float = 1e-3
    epochs: int = 2
    batch: int = 64
    negatives: int = 4
    negatives_exclude: Literal["train_only", "nothing"] = "train_only"

    def __post_init__(self) -> None:
        at_least(self, 1, "negatives")
        self.neural()  # both check what they are made of
        self.rule()

    @property
    def user_table(self) -> str:
        """The server's table of users, of the MLP branch where there is one."""
        return f"{SERVER}users_{[*self.neural().tables()][-1]}"

    def neural(self) -> Neural:
        """The recommender itself."""
        return Neural(self.kind, self.width, self.layers, self.std)

    def rule(self) -> LocalRule:
        """How a device trains."""
        rate = self.learning_rate
        return LocalRule("adam", rate, 0.0, None, self.epochs, self.batch)

    def first(self, shape: Shape, stream: Stream) -> dict[str, Tensor]:
        """The first model, its table of users out of the clients' sight."""
        found = self.neural().init(shape, stream)
        return {
            f"{SERVER}{name}" if name.startswith("users_") else name: value
            for name, value in found.items()
        }

    def samples(self, cohort: Cohort, round: Round) -> Samples:
        """A cohort's interactions and this round's negatives."""
        draws = round.stream.of("negatives")
        return collect(cohort, Negatives(self.negatives, self.negatives_exclude), draws)

    def fit(
        self,
        model: State,
        start: State,
        samples: Samples,
        round: Round,
        pull: tuple[float, State] | None = None,
    ) -> Fitted:
        """One local run; every run of a round sees the same batches."""
        draws = round.stream.of("shuffle")
        tables = items(model)
        if round.privacy is not None:
            rate = self.learning_rate
            return dp.fit_privately(self.neural(), tables, start, samples, round, rate)
        return fit(self.neural(), tables, start, samples, self.rule(), draws, pull)

    def sent(self, cohort: Cohort, fitted: Fitted, start: State) -> Uploads:
        """The change of all that a run trained, of equal weight."""
        return self.uploads(
            cohort,
            fitted.rows,
            minus(fitted.dense, start),
            minus(fitted.users, start),
        )

    def shared_scores(self, model: State, cohort: Cohort) -> Tensor:
        """Scores (clients, items) by the model that all share."""
        return self.neural().scores(model, own_rows(model, cohort.clients))

    def uploads(
        self,
        cohort: Cohort,
        rows: Mapping[str, Rows],
        layers: State,
        rows_of_users: State,
    ) -> Uploads:
        """What leaves the devices: changes, learned at one rate."""
        names = [*rows, *layers, *rows_of_users]
        scale = dict.fromkeys(names, self.learning_rate)
        return Uploads(cohort.clients, rows, layers, None, scale, users=rows_of_users)

    def bytes_down(self, model: State) -> int:
        """The item tables, the dense layers and one user row."""
        row = [value[:1] for value in users(model).values()]
        sent = [*broadcast(model).values(), *row]
        return sum(value.numel() * value.element_size() for value in sent)

    def room(self, counts: Tensor) -> Tensor:
        if self.negatives_exclude == "nothing":
            return bucket(counts)  # DP-SGD pads by the shard
        return coarse(counts)  # ``fit`` pads no client by another

    def footprint(self, shape: Shape, positives: int) -> int:
        neural, count = self.neural(), self.negatives
        need = neural.footprint(shape, positives, count, self.epochs)
        if self.negatives_exclude != "nothing":
            return need
        return max(need, dp.footprint(neural, shape, positives, count))


# By name, for a model that comes from a checkpoint has another order.


def items(model: State) -> State:
    """The item tables of a model."""
    return {n: model[n] for n in sorted(model) if n.startswith("items_")}


def dense(model: State) -> State:
    """The dense layers of a model."""
    sent = sorted(broadcast(model))
    return {n: model[n] for n in sent if not n.startswith("items_")}


def users(model: State) -> State:
    """The tables of users that the server keeps, by the names of uploads."""
    kept = [name for name in sorted(model) if name.startswith(f"{SERVER}users_")]
    return {name.removeprefix(SERVER): model[name] for name in kept}


def received(model: State, clients: Tensor) -> State:
    """What each client trains beside item rows: its user row, and the dense layers."""
    layers = copies(dense(model), len(clients))
    return {**own_rows(model, clients), **layers}


def own_rows(model: State, clients: Tensor) -> State:
    """Each client's row of the tables of users."""
    return {name: value[clients] for name, value in users(model).items()}


def copies(layers: State, count: int) -> State:
    """The same layers for so many clients, as an expanded view."""
    return {name: value.expand(count, *value.shape) for name, value in layers.items()}


def minus(after: State, before: State) -> dict[str, Tensor]:
    """How far each tensor of ``after`` moved."""
    return {name: value - before[name] for name, value in after.items()}
