"""FedNCF as federeco runs it: the whole model is sent, trained and averaged.

Every tensor, the rows of all users included, goes to every client of a round and
comes back; the server takes the plain mean. Settings are those of the released code.
"""

from dataclasses import dataclass, replace
from typing import Literal, Self

from torch import Tensor

from privfed.checks import at_least
from privfed.data.cohort import Cohort
from privfed.data.world import Shape
from privfed.devices.batches import bucket, coarse, collect
from privfed.devices.negatives import Negatives
from privfed.interfaces import FromTotal, PerInteraction, Ranker, Round, State, Trained
from privfed.messages import Rows, Total, Uploads
from privfed.methods.neural import private as dp
from privfed.methods.neural.network import Fitted, LocalRule, Neural, fit
from privfed.seeds import Stream
from privfed.surfaces import SendsUser, UserRow


@dataclass(frozen=True)
class Federeco(Ranker, FromTotal, PerInteraction, SendsUser):
    """NeuMF trained on each device by AdamW; all weights are averaged.

    A client moves its own row of the users' tables and the rows of the items that it
    drew; weight decay shrinks all others. ``user_rows="owner"`` has each client send
    its own row alone, which the server copies instead of dividing its change by the
    cohort. ``item_rows="touched_mean"`` divides an item's change by the clients that
    drew it. Both leave alone what nobody trained. Under DP-SGD a device takes plain
    steps of ``learning_rate``, and nothing decays.
    """

    width: int = 16
    layers: tuple[int, ...] = (64, 32, 16, 8)
    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    decay: float = 0.01
    clip: float | None = 0.5
    epochs: int = 3
    batch: int = 64
    negatives: int = 4
    negatives_exclude: Literal["train_only", "nothing"] = "train_only"
    negatives_resample: Literal["round", "once"] = "once"
    user_rows: Literal["mean", "owner"] = "mean"
    item_rows: Literal["mean", "touched_mean"] = "mean"
    std: float = 1.0  # of the first embeddings

    keeps = "nothing; the users' tables are part of the model that all receive"
    sends = "all weights: own user row, item rows touched, MLP, and the decay factor"
    paper = "Perifanis and Efraimidis, 2022, as federeco runs it"

    def __post_init__(self) -> None:
        at_least(self, 1, "negatives")
        assert self.neural  # which checks its own settings
        assert self.rule  # likewise

    def user_row(self) -> UserRow:
        return UserRow("users_mlp")

    @property
    def neural(self) -> Neural:
        return Neural("neumf", self.width, self.layers, self.std)

    @property
    def rule(self) -> LocalRule:
        return LocalRule(
            self.optimizer,
            self.learning_rate,
            self.decay,
            self.clip,
            self.epochs,
            self.batch,
        )

    def init(self, shape: Shape, stream: Stream) -> tuple[State, State]:
        return self.neural.init(shape, stream), {}

    def train(
        self, model: State, private: State, cohort: Cohort, round: Round
    ) -> Trained:
        draws = round.always if self.negatives_resample == "once" else round.stream
        rule = Negatives(self.negatives, self.negatives_exclude)
        samples = collect(cohort, rule, draws.of("negatives"))
        clients = cohort.clients
        start = {n: _own(n, v, clients) for n, v in model.items() if not _item(n)}
        items = {n: v for n, v in model.items() if _item(n)}
        if round.privacy is None:
            shuffle = round.stream.of("shuffle")
            fitted = fit(self.neural, items, start, samples, self.rule, shuffle)
        else:
            rate = self.learning_rate
            fitted = dp.fit_privately(self.neural, items, start, samples, round, rate)
        return Trained({}, {}, self._uploads(model, clients, fitted), fitted.loss)

    def _uploads(self, model: State, clients: Tensor, fitted: Fitted) -> Uploads:
        """All tensors as changes; a table sent whole as changes beyond its decay."""
        rows, users, rest = dict(fitted.rows), {}, {}
        shrunk = self.decay > 0
        for name, table in rows.items():
            if shrunk and self.item_rows == "mean":
                rest[name] = fitted.rest
            elif shrunk:
                rows[name] = _plain(table, model[name], fitted.rest)
        for name, value in fitted.users.items():
            before = model[name][clients]
            if shrunk and self.user_rows == "mean":
                rest[name] = fitted.rest
                before = before * fitted.rest[:, None]
            users[name] = value - before
        dense = {name: value - model[name] for name, value in fitted.dense.items()}
        scale = dict.fromkeys(model, self.learning_rate)
        return Uploads(clients, rows, dense, scale=scale, users=users, rest=rest)

    def apply(self, model: State, total: Total) -> State:
        """The mean of all clients' weights, from what they sent of them."""
        if total.weight == 0:  # nobody in the round had any data
            return model
        after = dict(model)
        for name, factor in total.rest.items():
            after[name] = after[name] * (factor / total.weight)
        for name, change in total.dense.items():
            after[name] = after[name] + change / total.weight
        for name, change in total.users.items():
            share = 1.0 if self.user_rows == "owner" else total.weight
            after[name] = after[name] + change / share
        for name, change in total.tables.items():
            senders = total.senders[name].clamp_min(1)[:, None]
            by = senders if self.item_rows == "touched_mean" else total.weight
            after[name] = after[name] + change / by
        return after

    def private_training(self) -> Self:
        """Plain SGD, with negatives that depend on nobody's data."""
        return replace(
            self, optimizer="sgd", decay=0.0, clip=None, negatives_exclude="nothing"
        )

    def score(self, model: State, private: State, cohort: Cohort) -> Tensor:
        users = {n: v[cohort.clients] for n, v in model.items() if _user(n)}
        return self.neural.scores(model, users)

    def room(self, counts: Tensor) -> Tensor:
        if self.negatives_exclude == "nothing":
            return bucket(counts)  # DP-SGD pads by the shard
        return coarse(counts)  # ``fit`` pads no client by another

    def footprint(self, shape: Shape, positives: int) -> int:
        neural, count = self.neural, self.negatives
        need = neural.footprint(shape, positives, count, self.epochs)
        if self.negatives_exclude != "nothing":
            return need
        return max(need, dp.footprint(neural, shape, positives, count))


def _item(name: str) -> bool:
    return name.startswith("items_")


def _user(name: str) -> bool:
    return name.startswith("users_")


def _own(name: str, value: Tensor, clients: Tensor) -> Tensor:
    """What each client starts from: its own row of a users' table, or the layer."""
    if _user(name):
        return value[clients]
    return value.expand(len(clients), *value.shape)


def _plain(rows: Rows, table: Tensor, rest: Tensor) -> Rows:
    """The whole change of rows whose decay was left out."""
    decay = (1 - rest)[rows.sender, None] * table[rows.item]
    return replace(rows, value=rows.value - decay)
