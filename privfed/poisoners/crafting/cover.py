"""Made-up interactions: the targets, and items that hide them."""

import torch
from torch import Tensor

from privfed.data.world import Pairs
from privfed.errors import SettingsError
from privfed.poisoning import Plot


def cover(plot: Plot, items: Tensor | None, size: int) -> Pairs:
    """The targets (if any) and ``size`` filler items of each malicious client.

    Fillers are drawn for each client, without repeats, uniformly from ``items``, None
    for the whole catalog; a target is no filler. Raises SettingsError where there are
    too few. Label 1.0.
    """
    pool = torch.arange(plot.items) if items is None else torch.unique(items)
    pool = pool[~torch.isin(pool, plot.targets)]
    if not 0 <= size <= len(pool):
        raise SettingsError(
            f"a malicious client cannot take {size} of {len(pool)} filler items; "
            "lower the number of its interactions"
        )
    key = plot.stream.of("cover").bits(plot.mine[:, None], pool[None])
    chosen = pool[key.argsort(dim=1, stable=True)[:, :size]]
    item = torch.cat([plot.targets.expand(len(chosen), -1), chosen], 1)
    return laid(plot, item, torch.ones(item.shape))


def laid(plot: Plot, item: Tensor, label: Tensor) -> Pairs:
    """Each malicious client's items and labels, (malicious, size), as pairs."""
    clients, size = item.shape
    order = item.argsort(dim=1)
    return Pairs(
        torch.arange(clients).repeat_interleave(size),
        item.gather(1, order).view(-1),
        label.gather(1, order).view(-1),
        torch.zeros(clients * size, plot.shape.context),
    )
