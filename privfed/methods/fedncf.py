"""FedNCF: NeuMF with private user rows, shared item tables and shared network.

Perifanis and Efraimidis, 2022, in the usual form: user rows never leave. NeuMF is
He et al., WWW 2017: a product branch and an MLP branch 128 -> 64 -> 32 -> 16.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.data.cohort import Cohort
from privfed.data.world import Shape
from privfed.devices.batches import Batch
from privfed.devices.gradients import Grads, Local
from privfed.devices.tape import Forward, Tape
from privfed.interfaces import Round, State
from privfed.methods.backbone import Backbone, cross_entropy
from privfed.methods.local_sgd import Rates
from privfed.methods.parts import Part
from privfed.surfaces import ReadsUser, UserLayer

_ITEMS = 512  # items scored at a time, which bounds (clients, items, width)


@dataclass(frozen=True)
class FedNCF(Backbone, ReadsUser):
    """FedNCF: neural collaborative filtering, averaged uniformly."""

    keeps = "user rows of both branches"
    sends = "change of the item rows touched (two tables) and of the whole MLP"
    paper = "Perifanis and Efraimidis, 2022"

    @property
    def weighted(self) -> bool:
        return False

    def tables(self, width: int) -> Sequence[Part]:
        return [Part("items", "rows", (width,))]

    def parts(self, shape: Shape) -> Sequence[Part]:
        return self.head_parts(self.width)

    def head_parts(self, width: int) -> Sequence[Part]:
        sizes = [2 * width, width, width // 2, width // 4]
        layers = [Part(f"mlp{k}", "layer", (sizes[k], sizes[k + 1])) for k in range(3)]
        return [
            Part("items_mf", "rows", (width,), std=self.item_std),
            Part("items_mlp", "rows", (width,), std=self.item_std),
            Part("user_mf", "vector", (width,), private=True),
            Part("user_mlp", "vector", (width,), private=True),
            *layers,
            Part("out", "layer", (sizes[3] + width, 1)),
        ]

    def rates(self, shape: Shape, round: int) -> Rates:
        lr = self.learning_rate
        names = ["user_mf", "user_mlp", "mlp0", "mlp1", "mlp2", "out", "fusion"]
        items = dict.fromkeys(
            ["items", "items_mf", "items_mlp"], lr * shape.items * self.item_rate
        )
        return dict.fromkeys(names, lr) | items

    def phases(self, shape: Shape, round: int) -> Sequence[Rates]:
        return [self.rates(shape, round)]

    def head(self, tape: Forward, x: Tensor | None) -> Tensor:
        mf, mlp = tape.rows("items_mf"), tape.rows("items_mlp")
        if x is not None:
            mf, mlp = mf + x, mlp + x
        hidden = torch.cat([tape.vector("user_mlp"), mlp], dim=-1)
        hidden = _tower(tape.linear, hidden)
        both = torch.cat([hidden, tape.vector("user_mf") * mf], dim=-1)
        return tape.linear("out", both)[..., 0]

    def logits(self, tape: Forward) -> Tensor:
        return self.head(tape, None)

    def user_layer(self) -> UserLayer:
        return UserLayer("mlp0.weight", "mlp0.bias", "user_mlp", 0, self.width)

    def backward(
        self, local: Local, batch: Batch, cohort: Cohort, round: Round
    ) -> tuple[Tensor, Grads]:
        tape = Tape(local, batch)
        loss = cross_entropy(self.logits(tape), batch)
        return loss.detach(), tape.gradients(loss)

    def score(self, model: State, private: State, cohort: Cohort) -> Tensor:
        return self.head_scores(model, private, cohort, torch.zeros(1, 1, 1))

    def head_scores(
        self, model: State, private: State, cohort: Cohort, x: Tensor
    ) -> Tensor:
        mf, mlp = model["items_mf"] + x, model["items_mlp"] + x
        user_mf = private["user_mf"][cohort.clients][:, None]
        user_mlp = private["user_mlp"][cohort.clients][:, None]
        weight = model["mlp0.weight"]
        width = user_mlp.shape[2]  # the first layer splits into a user and an item part
        first_user = user_mlp @ weight[:, :width].T + model["mlp0.bias"]
        first_item = mlp @ weight[:, width:].T

        def linear(name: str, y: Tensor) -> Tensor:
            return y @ model[f"{name}.weight"].T + model[f"{name}.bias"]

        scores = []
        for start in range(0, mf.shape[1], _ITEMS):
            part = slice(start, start + _ITEMS)
            hidden = torch.relu(first_user + first_item[:, part])
            for name in ("mlp1", "mlp2"):
                hidden = torch.relu(linear(name, hidden))
            both = torch.cat([hidden, user_mf * mf[:, part]], dim=-1)
            scores.append(linear("out", both)[..., 0])
        return torch.cat(scores, dim=1)


def _tower(linear: Callable[[str, Tensor], Tensor], x: Tensor) -> Tensor:
    for name in ("mlp0", "mlp1", "mlp2"):
        x = torch.relu(linear(name, x))
    return x
