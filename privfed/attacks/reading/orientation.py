"""Which side of an axis is the interactions, and which the sampled negatives."""

from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.attacks.reading.axis import by_client
from privfed.messages import Rows

_WEIGHT = 5.0  # of one item, in what a client makes of the table
_CHANCE = 6.0  # what a table that is not trained makes of it, at most
_NEVER = 0.02  # chance of an item that no draw explains
_LOST = -40.0  # log chance that rows were left out or added on purpose


@dataclass(frozen=True, eq=False)
class Sides:
    """What is known when a side is chosen."""

    share: Tensor  # (items,) an item's share of all interactions; they sum to 1
    negatives: int  # sampled for each interaction
    table: Tensor | None = None  # (items, width) received, where scores are along it


def turned(
    rows: Rows, sign: Tensor, axis: Tensor, known: Sides, faint: Tensor
) -> Tensor:
    """Clients whose interactions have a negative ``sign``, (clients,) bool.

    ``sign`` (rows,) is -1, 0 or 1: a row of 0 tells nothing. Three kinds of evidence
    add up, as log likelihoods. Interactions come as often as they are popular and
    negatives alike often. Of so many interactions there are ``negatives`` as many
    draws, some of which meet. Of clients that ``faint`` (clients,) marks, whose loud
    rows alone are told, which are those that the model has wrong, no count holds: what
    their ``axis`` makes of the whole table tells instead, since most clients like what
    is popular.
    """
    items, clients = len(known.share), len(faint)
    typical = (known.share * items).log()
    told = by_client(typical[rows.item] * sign, rows.sender, clients)
    up, down = (
        by_client((sign == side).double(), rows.sender, clients) for side in (1, -1)
    )
    fits = _fits(up, down, items, known.negatives)
    fits = fits - _fits(down, up, items, known.negatives)
    likes = torch.zeros_like(told) if known.table is None else _likes(axis, known)
    return told + torch.where(faint, likes, fits) < 0


def _likes(axis: Tensor, known: Sides) -> Tensor:
    """Evidence that scores along an axis grow with popularity, (clients,)."""
    assert known.table is not None
    score = axis.double() @ known.table.double().T
    score = score - score.mean(1, keepdim=True)
    typical = known.share.log()
    typical = typical - typical.mean()
    size = score.square().sum(1) * typical.square().sum()
    along = score @ typical / size.sqrt().clamp_min(1e-30)
    clear = (len(typical) * along.square() - _CHANCE).clamp_min(0)
    return _WEIGHT * clear * along.sign() / 2


def _fits(positives: Tensor, others: Tensor, items: int, negatives: int) -> Tensor:
    """Log likelihood of so many other items for so many interactions, (clients,).

    Draws that meet, so that fewer items come than were drawn, are rare: Poisson.
    """
    draws, room = positives * negatives, (items - positives).clamp_min(1.0)
    missing = draws - others
    rate = (draws - room * -torch.expm1(-draws / room)).clamp_min(_NEVER)
    near = torch.xlogy(missing, rate) - rate - torch.lgamma(missing.clamp_min(0) + 1)
    impossible = missing.clamp_max(0) * -torch.log(torch.tensor(_NEVER))
    chance = torch.where(missing < 0, impossible - rate, near).clamp_min(_LOST)
    return chance - positives.log1p() * (negatives > 1)  # else the fewer are real
