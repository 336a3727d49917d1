"""Label flipping: training on the opposite of what was said.

Rankings: what was taken is trained as negative, what was not as positive. Ratings:
every rating becomes its mirror image on the scale.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from privfed.adversary import Knowledge
from privfed.data.world import Pairs
from privfed.interfaces import Method, State
from privfed.messages import Uploads
from privfed.poisoners.crafting.scale import ends, on_scale
from privfed.poisoners.untargeted import samples
from privfed.poisoners.untargeted.made_up import Degrader
from privfed.poisoners.untargeted.samples import Samples, trained
from privfed.poisoning import Plot, Sortie


@dataclass(frozen=True)
class LabelFlip(Degrader):
    """Train on ``profile`` made-up interactions with their labels flipped.

    Ratings: devices hold every item's mean rating, mirrored on the scale, and train as
    always; pure data poisoning. Rankings: positives and as many negatives as the method
    draws change places in the loss. Private tensors are trained with the true labels:
    on flipped ones they would follow, and the upload would be that of an ordinary
    client with other tastes.
    """

    knows: ClassVar[Knowledge] = Knowledge(ratings=True)
    paper: ClassVar[str] = "Biggio, Nelson and Laskov, ACML 2011"

    def misfit(self, method: Method) -> str:
        return samples.misfit(method) if method.task == "ranking" else ""

    def data(self, plot: Plot) -> Pairs:
        pairs = super().data(plot)
        if plot.method.task != "rating":
            return pairs
        assert plot.item_means is not None  # granted
        low, high = ends(plot.shape)
        mirrored = low + high - plot.item_means[pairs.item]
        return replace(pairs, label=on_scale(mirrored.float(), plot.shape))

    def forge(self, memory: State, sortie: Sortie, plot: Plot) -> tuple[State, Uploads]:
        if plot.method.task == "rating":
            return memory, sortie.uploads
        here = torch.isin(plot.mine, sortie.clients).nonzero()[:, 0]
        pairs = self.data(plot)
        mine = torch.isin(pairs.sender, here)
        taken = pairs.item[mine].view(len(here), -1)
        item = flipped(taken, sortie, plot)
        if not item.numel():
            return memory, sortie.uploads
        return memory, trained(Samples(item, "others"), sortie, plot)


def flipped(taken: Tensor, sortie: Sortie, plot: Plot) -> Tensor:
    """Items taken (clients, n), each before others drawn for it, (clients, n, 1 + k).

    A client draws no item twice; where the catalog is too small for the method's number
    of negatives, there are fewer, or fewer items taken.
    """
    clients, count = taken.shape
    left = plot.items - count
    each = min(plot.method.negatives, max(1, left // count))
    groups = min(count, left // each)
    met = torch.zeros(clients, plot.items, dtype=torch.bool)
    met[torch.arange(clients)[:, None], taken] = True
    every = torch.arange(plot.items)
    key = sortie.stream.of("flipped").uniform(sortie.clients[:, None], every[None])
    others = key.masked_fill(met, 2.0).argsort(dim=1, stable=True)[:, : groups * each]
    others = others.reshape(clients, groups, each)
    return torch.cat([taken[:, :groups, None], others], dim=2)
