"""Sign flipping: the opposite of what training says."""

from dataclasses import dataclass, replace
from typing import ClassVar

from privfed.checks import positive
from privfed.interfaces import State
from privfed.messages import Uploads
from privfed.poisoners.untargeted.made_up import Degrader
from privfed.poisoning import Plot, Sortie


@dataclass(frozen=True)
class SignFlip(Degrader):
    """Upload minus ``factor`` times what ordinary training on made-up data came to.

    It sees no other upload. Of all honest uploads' mean, as ByzFL's SignFlipping:
    ``inner_product:factor=1,per=upload``.
    """

    factor: float = 10.0

    paper: ClassVar[str] = "Li et al., RSA, AAAI 2019"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "factor")

    def forge(self, memory: State, sortie: Sortie, plot: Plot) -> tuple[State, Uploads]:
        sent = sortie.uploads
        rows = {
            name: replace(table, value=table.value * -self.factor)
            for name, table in sent.rows.items()
        }
        dense = {name: value * -self.factor for name, value in sent.dense.items()}
        return memory, replace(sent, rows=rows, dense=dense)
