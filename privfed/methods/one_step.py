"""What defenses add to the loss of a method that takes one local step."""

from collections.abc import Sequence

import torch
from torch import Tensor

from privfed.devices.flat import Flat
from privfed.devices.gradients import Local
from privfed.devices.penalty import Penalty, Pull, Terms
from privfed.errors import SettingsError
from privfed.methods.factors import ITEMS, USERS


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
