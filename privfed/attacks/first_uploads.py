"""What an attacker keeps of a few clients: the first upload of each, and its model.

Only uploads of the first rounds are kept, so that few models need be.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.adversary import Prior
from privfed.interfaces import State
from privfed.views import ServerView, UploadsView, View


def empty(prior: Prior, victims: int) -> State:
    """Nothing seen yet; so many clients, drawn at random, will be attacked."""
    mark = torch.zeros(prior.clients, dtype=torch.bool)
    rng = prior.stream.of("victims").generator()
    drawn = torch.randperm(prior.clients, generator=rng, device="cpu")[:victims]
    mark[drawn.to(mark.device)] = True
    return {"waited for": mark}


def noted(memory: State, view: View) -> State:
    """With what a view shows of clients that are waited for."""
    if isinstance(view, ServerView):
        if not bool(memory["waited for"].any()):
            return memory
        return with_model(memory, view)
    assert isinstance(view, UploadsView)
    mine = memory["waited for"][view.clients]
    if not bool(mine.any()):
        return memory
    new = {
        "client": view.clients[mine],
        "round": torch.full_like(view.clients[mine], view.round),
    }
    for name, rows in view.uploads.rows.items():
        at = mine[rows.sender]
        new[f"owner {name}"] = view.clients[rows.sender[at]]
        new[f"item {name}"] = rows.item[at]
        new[f"value {name}"] = rows.value[at]
    if "client" in memory:
        new = {n: torch.cat([memory[n], value]) for n, value in new.items()}
    waiting = memory["waited for"].clone()
    waiting[view.clients] = False
    return {**memory, **new, "waited for": waiting}


def with_model(memory: State, view: ServerView) -> State:
    """With a copy of what the server holds: a saved state has no tensor twice."""
    name = f"model {view.round} "
    return {**memory, **{name + n: v.clone() for n, v in view.model.items()}}


def model_of(memory: State, round: int) -> State:
    """All that the server held when a round began."""
    name = f"model {round} "
    return {n.removeprefix(name): v for n, v in memory.items() if n.startswith(name)}


def clients(memory: State) -> tuple[Tensor, Tensor]:
    """Clients that were seen, ascending, and the round of each."""
    if "client" not in memory:
        none = torch.zeros(0, dtype=torch.int64)
        return none, none
    found, order = memory["client"].sort()
    return found, memory["round"][order]


@dataclass(frozen=True, eq=False)
class Sent:
    """The rows of some clients, padded: all that a client sent for an item in one."""

    item: Tensor  # (clients, candidates), 0 where padded
    real: Tensor  # (clients, candidates) bool: not padding
    value: Tensor  # (clients, candidates, width of all tables)


def sent(memory: State, of: Tensor, tables: Sequence[str], items: int) -> Sent:
    """What some clients sent, by item; a row that a client did not send is zero."""
    keys = {name: _keys(memory, name, of, items) for name in tables}
    pairs = torch.cat([key for _, key in keys.values()]).unique()
    owner, item = pairs // items, pairs % items
    count = torch.bincount(owner, minlength=len(of))
    within = torch.arange(len(pairs)) - (count.cumsum(0) - count)[owner]
    size = (len(of), int(count.max()))
    real = torch.zeros(size, dtype=torch.bool)
    real[owner, within] = True
    laid = torch.zeros(size, dtype=torch.int64)
    laid[owner, within] = item
    parts = []
    for name, (at, key) in keys.items():
        rows = memory[f"value {name}"][at]
        place = torch.searchsorted(pairs, key)
        value = rows.new_zeros(*size, rows.shape[1])
        value[owner[place], within[place]] = rows
        parts.append(value)
    return Sent(laid, real, torch.cat(parts, 2))


def _keys(memory: State, name: str, of: Tensor, items: int) -> tuple[Tensor, Tensor]:
    """Places in memory of some clients' rows of a table, and (client, item) as one."""
    owner = memory[f"owner {name}"]
    at = torch.isin(owner, of).nonzero()[:, 0]
    position = torch.searchsorted(of, owner[at])
    return at, position * items + memory[f"item {name}"][at]
