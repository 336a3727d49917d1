"""FedAvg-Rec: FedAvg over item embeddings with private score heads.

The first backbone of FedMR; weights proportional to data size, as
McMahan et al., AISTATS 2017.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from privfed.data.world import Shape
from privfed.methods.backbone import HEAD, LinearBackbone
from privfed.methods.local_sgd import Rates
from privfed.methods.parts import Part


@dataclass(frozen=True)
class FedAvg(LinearBackbone):
    """FedAvg-Rec: one shared item table, weighted averaging, private heads."""

    keeps = "score head (weight and bias)"
    sends = "change of the item rows touched; number of interactions as weight"
    paper = "McMahan et al., AISTATS 2017; as in FedMR"

    @property
    def weighted(self) -> bool:
        return True

    def tables(self, width: int) -> Sequence[Part]:
        return [Part("items", "rows", (width,), std=self.item_std)]

    def rates(self, shape: Shape, round: int) -> Rates:
        lr = self.learning_rate
        return {HEAD: lr, "items": lr * self.item_rate, "fusion": lr}

    def phases(self, shape: Shape, round: int) -> Sequence[Rates]:
        return [self.rates(shape, round)]
