"""Inner-product manipulation: minus so many times what honest clients send on average.

Xie, Koyejo and Gupta, Fall of Empires, UAI 2019: the server's step then has a negative
inner product with the honest one, while each forged upload may be as small as one
likes.
"""

from dataclasses import dataclass
from typing import ClassVar

from privfed.checks import positive
from privfed.messages import Uploads
from privfed.poisoners.crafting.rows import Crafted, replaced
from privfed.poisoners.untargeted.honest import Per, sums
from privfed.poisoners.untargeted.omniscient import Omniscient
from privfed.poisoning import Plot, Sortie


@dataclass(frozen=True)
class InnerProductManipulation(Omniscient):
    """Upload minus ``factor`` times the mean of all honest uploads of the round.

    ``per="item"`` takes each row's mean over the clients that sent the item, ``upload``
    over all clients (the paper, ByzFL), a row that was not sent being zero. Clients
    count by their weights. With ``factor=1`` it is ByzFL's SignFlipping.
    """

    factor: float = 2.0
    per: Per = "item"

    paper: ClassVar[str] = "Xie et al., UAI 2019"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "factor")

    def answer(self, honest: Uploads, sortie: Sortie, plot: Plot) -> Uploads:
        total, rows = sums(honest, plot.items), {}
        for name, item in total.items.items():
            count = total.weights[name][:, None] if self.per == "item" else total.weight
            rows[name] = Crafted(item, total.rows[name] / count * -self.factor)
        dense = {n: v / total.weight * -self.factor for n, v in total.dense.items()}
        return replaced(sortie.uploads, rows, dense, plot.items)
