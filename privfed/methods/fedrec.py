"""FedRec and FedRec++: matrix factorization of ratings under virtual ratings.

Lin et al., FedRec: Federated Recommendation with Explicit Feedback, IEEE Intelligent
Systems 2021, in its batch form: a client's gradient is that of PMF over the items that
it rated and over sampled items that it did not, with a rating made up for them. Steps
are means: of a client's items for the user vector, of its senders for an item's row.

FedRec++ (Liang et al., AAAI 2021) has denoising clients take the virtual ratings'
gradients out again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

from privfed.checks import not_negative, positive
from privfed.data.cohort import Cohort
from privfed.data.world import Pairs, Shape
from privfed.devices.batches import padded
from privfed.devices.virtual import TO_DENOISER, unrated
from privfed.errors import SettingsError
from privfed.interfaces import (
    SERVER,
    FromTotal,
    PerInteraction,
    Rater,
    Round,
    State,
    Trained,
)
from privfed.messages import Total, Uploads
from privfed.methods.factors import (
    ITEMS,
    USERS,
    Padded,
    beside,
    by_client,
    combined,
    inner,
    products,
    uniform,
)
from privfed.methods.ratings_dp import private_round
from privfed.seeds import Stream
from privfed.surfaces import InnerProduct, Pass

NOISE = f"{TO_DENOISER}{ITEMS}"  # the part of an upload that is of virtual ratings
_ROUNDS = f"{SERVER}rounds"


@dataclass(frozen=True)
class FedRec(Rater, FromTotal, PerInteraction, InnerProduct):
    """FedRec: each client also sends gradients of items that it did not rate.

    ``virtual`` is the paper's rho: unrated items for each rated one, drawn anew each
    round. Their rating is the client's mean (``fill="mean"``) or, with ``hybrid``,
    after ``predict_after`` rounds what its vector predicts once ``local_steps`` more
    steps on its own ratings were taken. Predictions are cut to the rating scale.

    ``denoise`` is FedRec++: user vectors learn from rated items alone, and the virtual
    ratings' gradients are sent a second time, to a denoising client that hands on
    their sum. The server subtracts it and has the total of plain training
    (``virtual=0``), but for rounding, as long as that client is honest. It sees each
    client's virtual items and their gradients, which point along the user vector; with
    the server it would know every rated item.
    """

    width: int = 20
    learning_rate: float = 0.8
    decay: float = 0.9  # of the learning rate, each round
    regularization: float = 1e-3
    virtual: int = 1
    fill: Literal["mean", "hybrid"] = "hybrid"
    predict_after: int = 10
    local_steps: int = 10
    denoise: bool = False
    start_size: float = 0.01  # first numbers lie within half of it around 0

    keeps = "user vector"
    sends = "gradient of the item rows rated, and of as many unrated ones as are drawn"
    paper = "Lin et al., IEEE Intelligent Systems 2021; Liang et al., AAAI 2021"

    def __post_init__(self) -> None:
        positive(self, "width", "learning_rate", "decay", "start_size")
        not_negative(self, "regularization", "virtual", "predict_after", "local_steps")
        if self.denoise and not self.virtual:
            raise ValueError("denoise needs virtual to be at least 1")

    def init(self, shape: Shape, stream: Stream) -> tuple[State, State]:
        items = uniform(shape.items, self.width, stream.of(ITEMS)) * self.start_size
        users = uniform(shape.clients, self.width, stream.of(USERS)) * self.start_size
        return {ITEMS: items, _ROUNDS: torch.zeros(())}, {USERS: users}

    def train(
        self, model: State, private: State, cohort: Cohort, round: Round
    ) -> Trained:
        if round.privacy is not None:
            return self._private(model, private, cohort, round)
        rated, items = by_client(cohort), cohort.shape.items
        x, rate = private[USERS][cohort.clients], self._rate(round.number)
        table = model[ITEMS][rated.item]
        error = self._errors(x, table, rated)
        data = rated
        if self.virtual:
            fakes = self._virtual(model, x, table, rated, cohort, round)
            data = beside(rated, fakes)
            table = model[ITEMS][data.item]
        every_error = self._errors(x, table, data)
        change = self._change(x, every_error, table)
        rows = {ITEMS: data.rows(change, items)}
        seen = rated.item.shape[1]
        learned, using = data, every_error
        if self.denoise:
            rows[NOISE] = fakes.rows(change[:, seen:], items)
            learned, using, table = rated, error, table[:, :seen]
        after = self._step(x, using, table, learned.count, rate)
        after = torch.where(rated.real.any(1, keepdim=True), after, x)
        uploads = Uploads(cohort.clients, rows, scale=dict.fromkeys(rows, 1.0))
        loss = error.square().sum(1) / rated.count[:, 0]
        return Trained({USERS: after}, {}, uploads, loss)

    def _private(
        self, model: State, private: State, cohort: Cohort, round: Round
    ) -> Trained:
        """Clients that rated an item stay hidden, so its row's mean is over all."""
        assert round.privacy is not None
        x, rate = private[USERS][cohort.clients], self._rate(round.number)
        rates = {ITEMS: rate, USERS: rate / round.privacy.expected}
        of = (1.0, self.regularization)
        after, rows, loss = private_round(x, model[ITEMS], cohort, round, rates, of)
        told = {ITEMS: replace(rows, value=rows.value / rate)}
        uploads = Uploads(cohort.clients, told, scale={ITEMS: 1.0})
        return Trained({USERS: after}, {}, uploads, loss)

    def private_training(self) -> Self:
        if self.virtual:
            raise SettingsError(
                "dp: virtual ratings follow from all of a client's ratings, so that no "
                "gradient can be clipped by interaction; give fedrec:virtual=0, or "
                "take --defense user_dp"
            )
        return self

    def pass_(self, round: int) -> Pass:
        rate = self._rate(round)
        return Pass(rate, self.regularization, factor=1.0, mean=True)

    def _errors(self, x: Tensor, table: Tensor, data: Padded) -> Tensor:
        return (data.label - inner(x, table)) * data.real

    def _change(self, x: Tensor, error: Tensor, table: Tensor) -> Tensor:
        """Minus the gradient of each sample's item row."""
        return error[..., None] * x[:, None] - table * self.regularization

    def _step(
        self, x: Tensor, error: Tensor, table: Tensor, count: Tensor, rate: float
    ) -> Tensor:
        pull = combined(error, table) / count
        return x + (pull - x * self.regularization) * rate

    def _rate(self, number: int) -> float:
        return self.learning_rate * self.decay**number

    def _virtual(
        self,
        model: State,
        x: Tensor,
        table: Tensor,
        rated: Padded,
        cohort: Cohort,
        round: Round,
    ) -> Padded:
        """Sampled unrated items and the ratings made up for them."""
        item, real = unrated(cohort, self.virtual, round.stream.of("virtual"))
        if self.fill == "hybrid" and round.number > self.predict_after:
            rate = self._rate(round.number)
            for _ in range(self.local_steps):
                error = self._errors(x, table, rated)
                x = self._step(x, error, table, rated.count, rate)
            return Padded(item, inner(x, model[ITEMS][item]), real)
        mean = rated.label.sum(1, keepdim=True) / rated.count
        return Padded(item, mean.expand(item.shape), real)

    def apply(self, model: State, total: Total) -> State:
        """Add to each row the mean of what its senders sent."""
        number = model[_ROUNDS] + 1
        if ITEMS not in total.tables:
            return {**model, _ROUNDS: number}
        table, count = total.tables[ITEMS], total.senders[ITEMS]
        if NOISE in total.tables:
            table, count = table - total.tables[NOISE], count - total.senders[NOISE]
        # A defense that sends every row hides how many rated an item.
        count = torch.where(count > 0, count, max(1.0, total.weight))
        mean = table / count[:, None]
        moved = model[ITEMS] + mean * self._rate(int(model[_ROUNDS]))
        return {**model, ITEMS: moved, _ROUNDS: number}

    def predict(
        self, model: State, private: State, cohort: Cohort, pairs: Pairs
    ) -> Tensor:
        found = products(model, private, cohort, pairs)
        scale = cohort.shape.scale
        return found if scale is None else found.clamp(*scale)

    def warnings(self) -> Sequence[str]:
        if not self.denoise:
            return ()
        return (
            "what is meant for the denoising client is shown to the server as well, "
            "unless --defense denoiser carries it",
        )

    def footprint(self, shape: Shape, positives: int) -> int:
        rated = padded(positives, 4)
        fakes = min(rated * self.virtual, shape.items)
        return 4 * self.width * 6 * (rated + fakes) + 32 * shape.items
