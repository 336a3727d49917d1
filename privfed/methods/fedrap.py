"""FedRAP: a shared item table plus a private one.

Li et al., ICLR 2024. Loss of a client in round t over the rows in its batch:
BCE - lambda tanh(t/10) MSE(D, C) + mu tanh(t/10) mean|C|, so that the private
table D moves away from the shared table C and C becomes sparse.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import tanh
from typing import Literal

from torch import Tensor
from torch.linalg import vector_norm

from privfed.data.world import Shape
from privfed.devices.batches import Batch
from privfed.devices.gradients import Local
from privfed.methods.backbone import HEAD, LinearBackbone
from privfed.methods.local_sgd import Rates
from privfed.methods.parts import Part
from privfed.surfaces import Known, Regularized


@dataclass(frozen=True)
class FedRAP(LinearBackbone, Regularized):
    """FedRAP: additive personalization of item embeddings.

    ``apart`` is the paper's lambda, ``sparse`` its mu. The released code computes
    the tanh schedule and then uses the constants: ``schedule="const"``.
    """

    negatives_distinct: bool = True
    apart: float = 0.1
    sparse: float = 0.1
    schedule: Literal["tanh", "const", "off"] = "tanh"
    decay: float = 0.97  # of all learning rates, each round
    own_rate: float = 1.0  # of the private table, relative to the shared one

    keeps = "score head; private item table"
    sends = "change of the shared item rows touched"
    paper = "Li et al., ICLR 2024"

    @property
    def weighted(self) -> bool:
        return False

    def tables(self, width: int) -> Sequence[Part]:
        own = Part("own_items", "rows", (width,), private=True)
        return [Part("items", "rows", (width,), std=self.item_std), own]

    def rates(self, shape: Shape, round: int) -> Rates:
        lr = self.learning_rate * self.decay**round
        item = lr * shape.items * self.item_rate
        return {
            HEAD: lr,
            "items": item,
            "own_items": item * self.own_rate,
            "fusion": lr,
        }

    def phases(self, shape: Shape, round: int) -> Sequence[Rates]:
        return [self.rates(shape, round)]

    def known_parts(self) -> Mapping[str, Sequence[Known]]:
        """The lasso's signs; the pull apart depends on the private table."""
        if self.schedule == "off" or self.sparse == 0:
            return {}
        return {"items": [Known("items", signs=True)]}

    def penalty(
        self, local: Local, batch: Batch, round: int
    ) -> tuple[Tensor | float, Mapping[str, Tensor]]:
        on = {"tanh": tanh(round / 10), "const": 1.0, "off": 0.0}[self.schedule]
        if on == 0.0:
            return 0.0, {}
        shared = batch.rows(local.rows["items"])
        gap = batch.rows(local.rows["own_items"]) - shared
        share = on * batch.share / shared.shape[2]  # (clients, samples)
        value = share * (
            self.sparse * vector_norm(shared, 1, dim=2)
            - self.apart * vector_norm(gap, dim=2).square()
        )
        pull = gap * (2 * self.apart * share)[..., None]
        lasso = shared.sign() * (self.sparse * share)[..., None]
        return value.sum(1), {"items": lasso.add_(pull), "own_items": pull.neg_()}
