"""The loss of methods that take one local step, and what defenses add to it."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import softplus

from privfed.devices.flat import Flat, flat_aligned
from privfed.devices.gradients import Local
from privfed.devices.penalty import Penalty, Pull, Terms
from privfed.errors import SettingsError
from privfed.methods.factors import ITEMS, USERS


def by_pairs(score: Tensor, laid: Flat, clients: int) -> tuple[Tensor, Tensor]:
    """BPR's loss summed over each client's pairs, and its derivative by each score.

    -log sigmoid(positive - negative): (clients,), and (rows,) of every row's score.
    """
    each = score.index_select(0, laid.place.view(-1)).view_as(laid.place)
    margin = each[:, :1] - each[:, 1:]
    push = flat_aligned(torch.sigmoid, -margin)
    by_sample = torch.cat([-push.sum(1, keepdim=True), push], 1)
    slope = torch.zeros_like(score)
    slope.index_add_(0, laid.place.view(-1), by_sample.view(-1))
    lost = flat_aligned(softplus, -margin).sum(1)
    owner = laid.sender.index_select(0, laid.place[:, 0])
    return lost.new_zeros(clients).index_add_(0, owner, lost), slope


def pulled(
    method: str, x: Tensor, rows: Tensor, laid: Flat, penalties: Sequence[Penalty]
) -> Pull:
    """The gradient of all terms by user vector and by row, (clients or rows, width).

    Raises SettingsError where a term has no gradient at what was received.
    """
    if any(penalty.anchored for penalty in penalties):
        raise SettingsError(
            f"{method} takes one local step, from what was received, where a term "
            "that holds rows there has no gradient; take fedncf or another method of "
            "several local steps"
        )
    samples = laid.uses(laid.place)
    whole = Pull({ITEMS: torch.zeros_like(rows)}, {USERS: torch.zeros_like(x)})
    for group in laid.by_size():
        item, count = laid.item[group.at], samples[group.at] * group.real
        received, own = {ITEMS: rows[group.at]}, {USERS: x[group.clients]}
        terms = Terms(penalties, received, item, count, {ITEMS: USERS})
        found = terms.gradients(Local(received, own), group.real.any(1))
        for name, value in found.rows.items():
            whole.rows[name][group.at[group.real]] = value[group.real]
        for name, value in found.users.items():
            whole.users[name][group.clients] = value
    return whole
