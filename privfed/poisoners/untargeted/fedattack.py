"""FedAttack: training on the hardest samples there are, the wrong way round.

Wu et al., FedAttack: effective and covert poisoning attack on federated recommendation
via hard sampling, KDD 2022: what lies nearest to the user is trained as negative and
what lies farthest as positive; the upload is an ordinary gradient.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from privfed.checks import at_least
from privfed.data.world import Task
from privfed.interfaces import Method, State
from privfed.messages import Uploads
from privfed.poisoners.crafting.scorer import scorer
from privfed.poisoners.untargeted import samples
from privfed.poisoners.untargeted.made_up import Degrader
from privfed.poisoners.untargeted.samples import Samples, trained
from privfed.poisoning import Plot, Sortie

_AT_ONCE = 16  # clients whose whole catalogs are scored together


@dataclass(frozen=True)
class FedAttack(Degrader):
    """Train the items that score lowest as positives, the highest ones as negatives.

    A client trains its own vector on its made-up interactions, as ordinary clients do.
    It then takes ``different`` positives, each with as many negatives as the method
    draws, no item twice; together they count as its ``profile`` does. The released code
    has one positive and the same negatives for all.
    """

    different: int = 1

    tasks: ClassVar[tuple[Task, ...]] = ("ranking",)
    paper: ClassVar[str] = "Wu et al., KDD 2022"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "different")
        if self.different > self.profile:
            raise ValueError(
                f"different must be at most profile, {self.profile}, "
                f"got {self.different}"
            )

    def misfit(self, method: Method) -> str:
        return samples.misfit(method)

    def forge(self, memory: State, sortie: Sortie, plot: Plot) -> tuple[State, Uploads]:
        groups = min(self.different, plot.items // (1 + plot.method.negatives))
        if not groups:
            return memory, sortie.uploads
        item = hardest(all_scores(sortie, plot), groups, plot.method.negatives)
        times = round(self.profile / groups)
        return memory, trained(Samples(item, "first", times), sortie, plot)


def hardest(score: Tensor, groups: int, negatives: int) -> Tensor:
    """Each user's hardest samples, (users, groups, 1 + negatives), from (users, items).

    The first group has the item that scores lowest, before those that score highest;
    the next group what is next.
    """
    order = score.argsort(dim=1, descending=True, stable=True)
    lowest = order.flip(1)[:, :groups, None]
    highest = order[:, : groups * negatives].reshape(-1, groups, negatives)
    return torch.cat([lowest, highest], 2)


def all_scores(sortie: Sortie, plot: Plot) -> Tensor:
    """How the malicious clients' own tensors score the catalog, (clients, items)."""
    of, found = scorer(plot.method, plot.shape), []
    place = torch.arange(len(sortie.clients), device=sortie.clients.device)
    every = torch.arange(plot.items, device=place.device)
    for some in torch.split(place, _AT_ONCE):
        item = every.expand(len(some), -1)
        own = {name: value[some] for name, value in sortie.own.items()}
        rows = of.rows(sortie.model, item)
        own = of.samples(sortie.model, own, item)
        found.append(of.predict(rows, sortie.model, own))
    return torch.cat(found)
