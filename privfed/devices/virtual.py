"""Virtual ratings: unrated items that a device adds to hide which ones it rated."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from privfed.data.cohort import Cohort
from privfed.devices.batches import bucket
from privfed.seeds import Stream

TO_DENOISER = "denoiser."  # a table whose name begins so is for the denoising client


def unrated(cohort: Cohort, share: int, stream: Stream) -> tuple[Tensor, Tensor]:
    """Items that a client did not rate, ``share`` for each that it did.

    Returns (item, real), both (clients, size): drawn without replacement, all unrated
    ones where there are no more. Draw and padding depend on the client alone.
    """
    clients, items = len(cohort.clients), cohort.shape.items
    met = torch.zeros(clients, items, dtype=torch.bool)
    met[cohort.sender, cohort.item] = True
    wanted = torch.minimum(share * met.sum(1), (~met).sum(1))
    size = min(share * int(bucket(cohort.counts).max()), items)
    key = stream.bits(cohort.clients[:, None], torch.arange(items)[None])
    key = key.masked_fill(met, 2**63 - 1)
    item = key.topk(size, dim=1, largest=False, sorted=True).indices
    item = pad(item, (0, -size % 4))
    return item, torch.arange(item.shape[1])[None] < wanted[:, None]
