"""PFedRec: private score heads and locally fine-tuned item tables.

Zhang et al., IJCAI 2023. On each batch the head steps first, then the item rows
step against the new head. The released code also uploads the head's bias; here it
stays private, as the paper says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from privfed.data.cohort import Cohort
from privfed.data.world import Shape
from privfed.interfaces import LocalView, State
from privfed.messages import Rows
from privfed.methods.backbone import HEAD, LinearBackbone
from privfed.methods.local_sgd import Rates
from privfed.methods.parts import Part


@dataclass(frozen=True)
class PFedRec(LinearBackbone, LocalView):
    """PFedRec: alternating local steps, dual personalization.

    ``view="local"`` predicts with the table as the client fine-tuned it in the
    last round it took part in (the paper); ``global`` with the server's table.
    """

    width: int = 32
    epochs: int = 1
    batch: int = 256
    item_rate: float = 80.0
    negatives_distinct: bool = True
    item_std: float | None = 1.0  # as the released code has it
    view: Literal["global", "local"] = "global"

    keeps = "score head (weight and bias)"
    sends = "change of the item rows touched"
    paper = "Zhang et al., IJCAI 2023"

    @property
    def local_view(self) -> bool:
        return self.view == "local"

    def score_locally(
        self, model: State, private: State, cohort: Cohort, local: Mapping[str, Rows]
    ) -> Tensor:
        scores = self.score(model, private, cohort)
        for rows in local.values():
            head = private[f"{HEAD}.weight"][cohort.clients[rows.sender], 0]
            scores[rows.sender, rows.item] += (rows.value * head).sum(1)
        return scores

    @property
    def weighted(self) -> bool:
        return False

    def tables(self, width: int) -> Sequence[Part]:
        return [Part("items", "rows", (width,), std=self.item_std)]

    def rates(self, shape: Shape, round: int) -> Rates:
        lr = self.learning_rate
        return {HEAD: lr, "items": lr * shape.items * self.item_rate, "fusion": lr}

    def phases(self, shape: Shape, round: int) -> Sequence[Rates]:
        rates = dict(self.rates(shape, round))
        head = {HEAD: rates.pop(HEAD)}
        return [head, rates]
