"""DL-FRS: an MLP recommender whose clients' gradients the server adds up.

The substrate of Rong, He and Chen, IJCAI 2022 (A-ra and A-hum), and of later attacks on
deep recommenders: He et al.'s MLP (WWW 2017) on a private user vector and an item row,
binary cross-entropy, one local step a round.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Literal

import torch
from torch import Tensor

from privfed.checks import positive
from privfed.data.cohort import Cohort
from privfed.data.world import Shape
from privfed.devices.batches import Batch
from privfed.devices.gradients import Grads, Local, RowGrad
from privfed.devices.tape import Forward, Tape
from privfed.interfaces import Round, State
from privfed.messages import Total
from privfed.methods.backbone import Backbone, cross_entropy
from privfed.methods.factors import normal_items, normal_users
from privfed.methods.local_sgd import Rates
from privfed.methods.parts import Part
from privfed.seeds import Stream
from privfed.surfaces import ReadsUser, UserLayer

ITEMS, USER = "items", "user"
LAYERS = ("mlp0", "mlp1", "out")
_ITEMS_AT_ONCE = 512  # which bounds (clients, items, width)
_ALL = 2**30  # samples: a batch of everything a client has


@dataclass(frozen=True)
class DLFRS(Backbone, ReadsUser):
    """DL-FRS: one local step on an MLP; the server adds the clients' gradients.

    The MLP is 2 width -> width -> width -> 1 with ReLUs. Nothing is averaged, so the
    learning rate must suit the number of clients in a round. ``batch`` takes all that a
    client has. ``start_size`` is the deviation of the first vectors, of item rows too
    unless ``item_std`` says another. An item that a client drew twice as a negative
    counts twice, or with ``repeats="once"`` once in its row's gradient alone, as the
    released code has it where it adds the rows up.
    """

    width: int = 8
    learning_rate: float = 1e-3
    epochs: int = 1
    batch: int = _ALL
    negatives_resample: Literal["round", "once"] = "once"
    repeats: Literal["each", "once"] = "each"
    user_rate: float = 1.0  # multiplies the learning rate of the user vectors
    start_size: float = 0.01

    keeps = "user vector"
    sends = "gradient of the item rows touched and of the whole MLP"
    paper = "Rong, He and Chen, IJCAI 2022"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "start_size", "user_rate")

    @property
    def weighted(self) -> bool:
        return False

    def tables(self, width: int) -> Sequence[Part]:
        return [Part(ITEMS, "rows", (width,))]

    def head_parts(self, width: int) -> Sequence[Part]:
        sizes = (2 * width, width, width, 1)
        return [
            Part(USER, "vector", (width,), private=True),
            *(
                Part(name, "layer", (sizes[k], sizes[k + 1]))
                for k, name in enumerate(LAYERS)
            ),
        ]

    def parts(self, shape: Shape) -> Sequence[Part]:
        return [*self.tables(self.width), *self.head_parts(self.width)]

    def rates(self, shape: Shape, round: int) -> Rates:
        rate = self.learning_rate
        vectors = {USER: rate * self.user_rate, ITEMS: rate * self.item_rate}
        return {**vectors, **dict.fromkeys(LAYERS, rate)}

    def phases(self, shape: Shape, round: int) -> Sequence[Rates]:
        return [self.rates(shape, round)]

    def init(self, shape: Shape, stream: Stream) -> tuple[State, State]:
        """Normal vectors, each client its own; He's uniform weights, zero biases."""
        size = self.start_size
        rows = normal_items(shape.items, self.width, stream)
        model = {ITEMS: rows * (self.item_std or size)}
        rng = stream.of("layers").generator()
        for part in self.head_parts(self.width)[1:]:
            fan_in, fan_out = part.size
            drawn = torch.rand(fan_out, fan_in, generator=rng, device="cpu") * 2 - 1
            weight = drawn.to(torch.get_default_device()) * sqrt(6 / fan_in)
            model[f"{part.name}.weight"] = weight
            model[f"{part.name}.bias"] = torch.zeros(fan_out)
        return model, {USER: normal_users(shape.clients, self.width, stream) * size}

    def head(self, tape: Forward, x: Tensor | None) -> Tensor:
        rows = tape.rows(ITEMS)
        hidden = torch.cat([tape.vector(USER), rows if x is None else rows + x], dim=-1)
        for name in LAYERS[:-1]:
            hidden = torch.relu(tape.linear(name, hidden))
        return tape.linear(LAYERS[-1], hidden)[..., 0]

    def logits(self, tape: Forward) -> Tensor:
        return self.head(tape, None)

    def backward(
        self, local: Local, batch: Batch, cohort: Cohort, round: Round
    ) -> tuple[Tensor, Grads]:
        tape = Tape(local, batch)
        loss = cross_entropy(self.logits(tape), batch)
        grads = tape.gradients(loss)
        if self.repeats == "once":
            coef = grads.rows[ITEMS].coef / batch.weight.clamp_min(1)[..., None]
            grads = replace(grads, rows={ITEMS: RowGrad(coef)})
        return loss.detach(), grads

    def user_layer(self) -> UserLayer:
        return UserLayer("mlp0.weight", "mlp0.bias", USER, 0, self.width)

    def apply(self, model: State, total: Total) -> State:
        """Add the sum of all changes."""
        moved = {**total.tables, **total.dense}
        return {n: v + moved[n] if n in moved else v for n, v in model.items()}

    def score(self, model: State, private: State, cohort: Cohort) -> Tensor:
        return self.head_scores(model, private, cohort, torch.zeros(1, 1, 1))

    def head_scores(
        self, model: State, private: State, cohort: Cohort, x: Tensor
    ) -> Tensor:
        weight = model["mlp0.weight"]  # splits into a user and an item part
        user = private[USER][cohort.clients][:, None]
        user = user @ weight[:, : self.width].T + model["mlp0.bias"]
        item = (model[ITEMS] + x) @ weight[:, self.width :].T

        def linear(name: str, y: Tensor) -> Tensor:
            return y @ model[f"{name}.weight"].T + model[f"{name}.bias"]

        scores = []
        for start in range(0, item.shape[1], _ITEMS_AT_ONCE):
            hidden = torch.relu(user + item[:, start : start + _ITEMS_AT_ONCE])
            hidden = torch.relu(linear("mlp1", hidden))
            scores.append(linear("out", hidden)[..., 0])
        return torch.cat(scores, dim=1)
