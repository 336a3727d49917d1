"""MetaMF: the server generates every client's own rating model.

Lin et al., Meta Matrix Factorization for Federated Rating Predictions, SIGIR 2020. A
device keeps its ratings and receives an item table and a small network made for it
alone; it sends back their gradient. The server passes each client's gradient through
the generators, which hold all that is trained, and steps with Adam. ``si`` replaces
the generated item tables by one shared table, ``sm`` the generated networks by one.
"""

from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

from privfed.checks import fours, not_negative, positive
from privfed.data.cohort import Cohort
from privfed.data.world import Pairs, Shape
from privfed.interfaces import FromUploads, PerInteraction, Rater, Round, State, Trained
from privfed.messages import Rows, Uploads, summed
from privfed.methods.metamf.device import (
    Network,
    differentiate,
    predict,
    sampled,
    shares,
    slopes,
)
from privfed.methods.metamf.private import Ratings, private_slopes
from privfed.methods.metamf.server import AT_ONCE, Arrived, generate, item_rows, through
from privfed.methods.metamf.theta import ITEMS, LOW, Sizes, Variant, start
from privfed.methods.outer import adam, clipped
from privfed.seeds import Stream
from privfed.surfaces import Generated

_ALIGNED = ("width", "low", "collaborative", "hidden", "user_width")


@dataclass(frozen=True)
class MetaMF(Rater, FromUploads, PerInteraction, Generated):
    """MetaMF: federated ratings with a model generated for every client.

    A client of a round uses ``batch`` of the ratings that the round gives it, drawn
    anew each time, or all of them, and sends the gradient of their mean squared error.
    With ``average="ratings"`` it sends along how many ratings the round gave it, and
    the server averages by that, so that every rating counts the same; with
    ``clients`` every client does. The released code, 64 shuffled ratings a step, is
    ``--sampling interactions`` with ``batch`` none: the round then gives a client its
    share of the 64.

    Sizes: item rows of ``width`` made of ``low`` numbers, ``layer`` hidden units of
    the prediction network, ``collaborative`` vector and ``hidden`` state of the
    generators. ``decay`` is coupled (it adds to the gradient); ``clip`` bounds the
    norm of the whole gradient before that.
    """

    variant: Variant = "full"
    width: int = 32
    layer: int = 8
    low: int = 8
    collaborative: int = 128
    hidden: int = 512
    user_width: int = 32
    learning_rate: float = 1e-4
    decay: float = 1e-3
    clip: float = 5.0
    batch: int | None = None
    average: Literal["ratings", "clients"] = "ratings"

    keeps = "nothing: the server knows each client's model"
    sends = "gradient of the rated items' rows and of the prediction network"
    paper = "Lin et al., SIGIR 2020"

    def __post_init__(self) -> None:
        positive(self, "learning_rate", "clip", "layer", *_ALIGNED)
        not_negative(self, "decay")
        fours(self, *_ALIGNED)
        if self.batch is not None and self.batch < 1:
            raise ValueError(f"batch must be at least 1, got {self.batch}")

    @property
    def sizes(self) -> Sizes:
        """All widths."""
        return Sizes(
            self.variant,
            self.width,
            self.layer,
            self.low,
            self.collaborative,
            self.hidden,
            self.user_width,
        )

    def init(self, shape: Shape, stream: Stream) -> tuple[State, State]:
        return start(self.sizes, shape, stream.generator()), {}

    def train(
        self, model: State, private: State, cohort: Cohort, round: Round
    ) -> Trained:
        if round.privacy is not None:
            return self._private(model, cohort, round)
        own = sampled(cohort, self.batch, round.stream.of("batch"))
        counts = torch.bincount(own.sender, minlength=len(cohort.clients))
        sent = generate(model, self.sizes, cohort.clients)
        x = item_rows(model, self.sizes, sent, own.sender, own.item)
        label = own.label.to(x.dtype)
        share = shares(own.sender, counts, x)
        found = differentiate(sent.network, x, own.sender, label, share)
        rows = summed(own.sender, own.item, found.rows, cohort.shape.items)
        return Trained({}, {}, self._uploads(cohort, rows, found.network), found.loss)

    def _private(self, model: State, cohort: Cohort, round: Round) -> Trained:
        sent = generate(model, self.sizes, cohort.clients)
        x = item_rows(model, self.sizes, sent, cohort.sender, cohort.item)
        of = Ratings(cohort, sent.network, x, cohort.label.to(x.dtype))
        rows, network, loss = private_slopes(of, round)
        return Trained({}, {}, self._uploads(cohort, rows, network), loss)

    def private_training(self) -> Self:
        """All ratings, taken by DP-SGD's own draws; how many there are stays hidden."""
        return replace(self, batch=None, average="clients")

    def _uploads(self, cohort: Cohort, rows: Rows, network: Network) -> Uploads:
        """Minus the gradient: the change that a step of rate 1 would make."""
        weight = None
        if self.average == "ratings":
            weight = cohort.counts.to(rows.value.dtype)
        dense = {
            "first.weight": -network.first,
            "first.bias": -network.first_bias,
            "second.weight": -network.second,
            "second.bias": -network.second_bias,
        }
        scale = dict.fromkeys(("items", *dense), 1.0)
        change = {"items": replace(rows, value=-rows.value)}
        return Uploads(cohort.clients, change, dense, weight, scale)

    def learn(self, model: State, uploads: Uploads, stream: Stream) -> State:
        """Pass every client's gradient through the generators; one step of Adam."""
        found = through(model, self.sizes, self._arrived(uploads))
        return adam(model, clipped(found, self.clip), self.learning_rate, self.decay)

    def _arrived(self, uploads: Uploads) -> Arrived:
        """Each client's gradient times its share of the round's mean."""
        rows, dense = uploads.rows["items"], uploads.dense
        weight = uploads.weight
        if weight is None:
            weight = torch.ones_like(dense["second.bias"][:, 0])
        share = -weight / weight.sum().clamp_min(1)

        def part(name: str) -> Tensor:
            return dense[name] * share.view(-1, *[1] * (dense[name].dim() - 1))

        return Arrived(
            uploads.clients,
            rows.sender,
            rows.item,
            rows.value * share.index_select(0, rows.sender)[:, None],
            Network(*map(part, dense)),
        )

    def predict(
        self, model: State, private: State, cohort: Cohort, pairs: Pairs
    ) -> Tensor:
        sent = generate(model, self.sizes, cohort.clients)
        x = item_rows(model, self.sizes, sent, pairs.sender, pairs.item)
        return predict(sent.network, x, pairs.sender)

    def slopes(
        self, model: State, clients: Tensor, sender: Tensor, item: Tensor
    ) -> tuple[Tensor, Tensor]:
        sent = generate(model, self.sizes, clients)
        x = item_rows(model, self.sizes, sent, sender, item)
        return slopes(sent.network, x, sender)

    def bytes_down(self, model: State) -> int:
        table = model[ITEMS if self.variant == "si" else f"{LOW}.weight"]
        return self.sizes.received(len(table)) * table.element_size()

    def footprint(self, shape: Shape, positives: int) -> int:
        """The gathered item generator is bounded; all else grows with the ratings."""
        used = positives if self.batch is None else min(positives, self.batch)
        gathered = min(3 * used * self.low * self.hidden, 3 * AT_ONCE)
        rating = 3 * self.width * (self.layer + self.low) + 8 * self.width
        client = 3 * self.hidden + sum(self.sizes.outputs) + self.low * self.width
        return 4 * (gathered + used * rating + 4 * client)
