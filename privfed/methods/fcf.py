"""FCF as FedMR's code has it: a linear head, and an item rate scaled by the catalog.

The original FCF (Ammad-ud-din et al., 2019) solves for the user vector in closed
form and uploads a dense item gradient; it is a different system.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from privfed.data.world import Shape
from privfed.methods.backbone import HEAD, LinearBackbone
from privfed.methods.local_sgd import Rates
from privfed.methods.parts import Part


@dataclass(frozen=True)
class FCF(LinearBackbone):
    """FCF (linear form): uniform averaging, item rate times the number of items.

    The large item rate undoes the dilution of averaging: a row that few of the
    cohort touch moves by that share of a local step.
    """

    keeps = "score head (weight and bias)"
    sends = "change of the item rows touched"
    paper = "Ammad-ud-din et al., 2019; linear form of FedMR"

    @property
    def weighted(self) -> bool:
        return False

    def tables(self, width: int) -> Sequence[Part]:
        return [Part("items", "rows", (width,), std=self.item_std)]

    def rates(self, shape: Shape, round: int) -> Rates:
        lr = self.learning_rate
        return {HEAD: lr, "items": lr * shape.items * self.item_rate, "fusion": lr}

    def phases(self, shape: Shape, round: int) -> Sequence[Rates]:
        return [self.rates(shape, round)]
