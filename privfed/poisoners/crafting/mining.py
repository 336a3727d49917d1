"""Popular items, told from how the model moves.

Zhang et al., PIECK, ICDE 2024: more clients move a popular item's row, so that it
changes more from one model that a client is sent to the next.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from privfed.errors import SettingsError
from privfed.interfaces import State
from privfed.poisoning import Plot, Sortie

_MET, _POPULAR, _MODEL = "met", "popular", "model."
_NEVER, _MINED = -1, -2  # in place of the round in which a client first took part


def begin(plot: Plot, count: int) -> State:
    """What is remembered before the first round.

    Until a client has seen two models any items stand for the popular ones, the same
    for all clients (in the released code, the first of a sort of ties). Raises
    SettingsError where the catalog has fewer than ``count``.
    """
    pool = torch.arange(plot.items)
    pool = pool[~torch.isin(pool, plot.targets)]
    if count > len(pool):
        raise SettingsError(
            f"the {count} most popular of {len(pool)} items are no choice; lower the "
            "poisoner's popular"
        )
    key = plot.stream.of("popular").bits(torch.zeros_like(pool), pool)
    anything = pool[key.argsort(stable=True)[:count]]
    clients = len(plot.mine)
    popular = anything.repeat(clients, 1)
    return {_MET: torch.full((clients,), _NEVER), _POPULAR: popular}


def mine(
    memory: State, sortie: Sortie, plot: Plot, tables: Iterable[str]
) -> tuple[State, Tensor]:
    """What is remembered after a round's models, and each client's popular items.

    Those are (here, popular), the most popular first, of every client by itself: the
    targets aside, the items whose rows in ``tables`` changed most between the first
    two models that it was sent.
    """
    here = torch.searchsorted(plot.mine, sortie.clients)
    met, popular = memory[_MET].clone(), memory[_POPULAR].clone()
    rows = torch.cat([sortie.model[name] for name in tables], 1)
    first = met[here]
    for number in torch.unique(first[first >= 0]).tolist():
        change = (rows - memory[f"{_MODEL}{number}"]).square().sum(1)
        change[plot.targets] = -1
        order = change.argsort(descending=True, stable=True)
        popular[here[first == number]] = order[: popular.shape[1]]
    met[here] = torch.where(first == _NEVER, sortie.round, _MINED)
    kept = {_MET: met, _POPULAR: popular}
    for number in torch.unique(met[met >= 0]).tolist():
        name = f"{_MODEL}{number}"
        kept[name] = rows.clone() if number == sortie.round else memory[name]
    return kept, popular[here]
