"""FedMF: matrix factorization of ratings with private user vectors.

Chai et al., Secure Federated Matrix Factorization, IEEE Intelligent Systems 2020. With
e = r - <x, y> a client steps x <- x - g (-2 e y + 2 l x) and sends, for each item it
rated, g (-2 e x + 2 l y), which the server subtracts. Here the upload is what the
server adds, the same with the other sign. Encryption is a channel's business.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Literal, Self

import torch
from torch import Tensor

from privfed.checks import at_least, not_negative, positive
from privfed.data.cohort import Cohort
from privfed.data.world import Pairs, Shape
from privfed.devices.batches import padded
from privfed.errors import SettingsError
from privfed.interfaces import FromTotal, PerInteraction, Rater, Round, State, Trained
from privfed.messages import Total, Uploads, everywhere
from privfed.methods.factors import (
    ITEMS,
    USERS,
    Adam,
    Padded,
    by_client,
    combined,
    inner,
    moved,
    normal_items,
    normal_users,
    products,
)
from privfed.methods.ratings_dp import private_round
from privfed.seeds import Stream
from privfed.surfaces import InnerProduct, Pass


@dataclass(frozen=True)
class FedMF(Rater, FromTotal, PerInteraction, InnerProduct):
    """FedMF: ratings as inner products; item gradients go up, the server adds them.

    ``steps="each"`` moves the user vector after every rating, in their order, as the
    released code does; ``all`` takes one step on the sum. ``reads`` is the user vector
    in the item gradient: as that step leaves it (the code), or as it was (``old``).
    ``upload="full"`` sends a zero row for every item that is not rated, which hides
    the rated ones only under encryption. The numbers of the first vectors are normal
    around ``start`` with deviation ``start_spread``. Under DP-SGD each step is one on
    the sum of clipped gradients, taken of users and items at once.

    With more than one of ``local_steps`` a device goes over its ratings so often, and
    its own copies of the item rows learn as well; what they moved is sent.
    ``optimizer="adam"`` takes these steps by Adam, started anew each round, and needs
    ``steps="all"``.
    """

    width: int = 100
    learning_rate: float = 1e-3
    regularization: float = 1e-4
    steps: Literal["each", "all"] = "each"
    reads: Literal["new", "old"] = "new"
    upload: Literal["part", "full"] = "part"
    start: float = 0.01
    start_spread: float = 0.0
    local_steps: int = 1
    optimizer: Literal["sgd", "adam"] = "sgd"

    keeps = "user vector"
    sends = "gradient of the item rows rated; with upload=full, zeros for all others"
    paper = "Chai et al., IEEE Intelligent Systems 2020"

    def __post_init__(self) -> None:
        positive(self, "width", "learning_rate")
        not_negative(self, "regularization", "start_spread")
        at_least(self, 1, "local_steps")
        if self.optimizer == "adam" and self.steps == "each":
            raise ValueError("optimizer adam steps on the sum; set steps=all")
        if self.start == self.start_spread == 0 or not isfinite(self.start):
            raise ValueError(
                "start must be finite, and not 0 unless start_spread is positive: from "
                f"zero vectors no gradient comes, got {self.start}"
            )

    def init(self, shape: Shape, stream: Stream) -> tuple[State, State]:
        items = normal_items(shape.items, self.width, stream) * self.start_spread
        users = normal_users(shape.clients, self.width, stream) * self.start_spread
        return {ITEMS: items + self.start}, {USERS: users + self.start}

    def train(
        self, model: State, private: State, cohort: Cohort, round: Round
    ) -> Trained:
        if round.privacy is not None:
            return self._private(model, private, cohort, round)
        data = by_client(cohort)
        x, table = private[USERS][cohort.clients], model[ITEMS][data.item]
        after, change, squares = self._trained(x, table, data)
        clients, items = len(cohort.clients), cohort.shape.items
        rows = data.rows(change, items)
        if self.upload == "full":
            rows = everywhere(rows, clients, items)
        scale = {ITEMS: self.learning_rate}
        uploads = Uploads(cohort.clients, {ITEMS: rows}, scale=scale)
        loss = squares.sum(1) / data.count[:, 0]
        return Trained({USERS: after}, {}, uploads, loss)

    def _private(
        self, model: State, private: State, cohort: Cohort, round: Round
    ) -> Trained:
        x, table = private[USERS][cohort.clients], model[ITEMS]
        rates = {ITEMS: self.learning_rate, USERS: self.learning_rate}
        of = (2.0, self.regularization)
        after, rows, loss = private_round(x, table, cohort, round, rates, of)
        scale = {ITEMS: self.learning_rate}
        uploads = Uploads(cohort.clients, {ITEMS: rows}, scale=scale)
        return Trained({USERS: after}, {}, uploads, loss)

    def private_training(self) -> Self:
        """Noise is on every row, so that every row is sent anyway."""
        if self.local_steps > 1 or self.optimizer != "sgd":
            raise SettingsError(
                "dp: it takes its own local steps, by SGD; leave fedmf's local_steps "
                "and optimizer out and give dp:steps=N"
            )
        return replace(self, upload="full")

    def pass_(self, round: int) -> Pass:
        return Pass(
            self.learning_rate,
            self.regularization,
            moves=self.steps,
            reads=self.reads,
            steps=self.local_steps,
            optimizer=self.optimizer,
        )

    def _trained(
        self, x: Tensor, table: Tensor, data: Padded
    ) -> tuple[Tensor, Tensor, Tensor]:
        """New user vectors, changes of item rows, and the last squared errors."""
        if self.optimizer == "adam":
            return self._by_adam(x, table, data)
        move = self._each if self.steps == "each" else self._all
        x, whole, squares = move(x, table, data)
        for _ in range(1, self.local_steps):
            x, change, squares = move(x, table + data.shared(whole), data)
            whole = whole + change
        return x, whole, squares

    def _by_adam(
        self, x: Tensor, table: Tensor, data: Padded
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same by Adam: user vectors first, then the item rows."""
        some = data.real.any(1, keepdim=True)
        user = Adam.start(x, self.learning_rate)
        item = Adam.start(table, self.learning_rate)
        whole = torch.zeros_like(table)
        for _ in range(self.local_steps):
            now = table + whole
            error = (data.label - inner(x, now)) * data.real
            user, move = user.step((x * self.regularization - combined(error, now)) * 2)
            after = torch.where(some, x + move, x)
            used = after if self.reads == "new" else x
            slope = (now * self.regularization - error[..., None] * used[:, None]) * 2
            item, move = item.step(data.shared(slope))
            x, whole = after, whole + move
        return x, data.first(whole), error.square()

    def _each(
        self, x: Tensor, table: Tensor, data: Padded
    ) -> tuple[Tensor, Tensor, Tensor]:
        """New user vectors, changes of item rows, and squared errors."""
        change, squares = torch.zeros_like(table), torch.zeros_like(data.label)
        for k in range(data.item.shape[1]):
            y, real = table[:, k], data.real[:, k, None]
            error = data.label[:, k, None] - inner(x, y[:, None])
            after = torch.where(real, self._moved(x, error * y), x)
            used = after if self.reads == "new" else x
            change[:, k] = self._change(used, error, y)
            squares[:, k] = (error.square() * real)[:, 0]
            x = after
        return x, change, squares

    def _all(
        self, x: Tensor, table: Tensor, data: Padded
    ) -> tuple[Tensor, Tensor, Tensor]:
        error = (data.label - inner(x, table)) * data.real
        some = data.real.any(1, keepdim=True)
        after = torch.where(some, self._moved(x, combined(error, table)), x)
        used = after if self.reads == "new" else x
        change = self._change(used[:, None], error[..., None], table)
        return after, change, error.square()

    def _moved(self, x: Tensor, pull: Tensor) -> Tensor:
        return x - (x * self.regularization - pull) * (2 * self.learning_rate)

    def _change(self, x: Tensor, error: Tensor, y: Tensor) -> Tensor:
        """What the server is to add to an item's row: minus g times the gradient."""
        return (error * x - y * self.regularization) * (2 * self.learning_rate)

    def apply(self, model: State, total: Total) -> State:
        """Add the sum of all changes."""
        return moved(model, total)

    def predict(
        self, model: State, private: State, cohort: Cohort, pairs: Pairs
    ) -> Tensor:
        return products(model, private, cohort, pairs)

    def warnings(self) -> Sequence[str]:
        if self.start_spread > 0 or self.width == 1:
            return ()
        return (
            "all columns start alike and so stay alike: the model has rank one "
            "whatever its width; start_spread=0.1 gives it all of its rank",
        )

    def footprint(self, shape: Shape, positives: int) -> int:
        rows = shape.items if self.upload == "full" else padded(positives, 4)
        own = 4 if self.local_steps == 1 else 8
        return 4 * self.width * (own * padded(positives, 4) + 2 * rows)
