"""MetaMF's server: generates every client's model, and learns through the generators.

    c = e_u M                                      collaborative vector of user row e_u
    h = relu(c A' + a)                             one for the item table, one per layer
    I_u[i] = (h B_i' + b_i) R_u,  R_u = h B_R' + b_R
    layer k: (W_k, v_k) = h_k B_k' + b_k

Only rows of items that are asked for are ever generated: the whole table of a client
is never there. (The paper has a hidden state of its own for R and no biases b_i, b_R;
this is the released code's form.)
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from privfed.interfaces import State
from privfed.methods.metamf.device import Network
from privfed.methods.metamf.theta import (
    FIRST,
    HIDDEN,
    ITEMS,
    LOW,
    MEMORY,
    RISE,
    SECOND,
    USERS,
    Sizes,
)
from privfed.methods.outer import Touched

BLOCK = 32  # rows of every matrix product that serves several clients
AT_ONCE = 2**20  # numbers of the item generator gathered at a time


@dataclass(frozen=True, eq=False)
class Generated:
    """What the server sends to some clients, the item table as its factors."""

    network: Network
    items: Tensor  # (clients, hidden): state of the item generator; unused in SI
    rise: Tensor  # (clients, low, width); unused in SI


def generate(model: State, sizes: Sizes, clients: Tensor) -> Generated:
    """Models of some clients; a client's are the same whoever else is among them."""
    vector = _alike(model[USERS].index_select(0, clients), model[MEMORY], None)
    hidden = _layer(model, HIDDEN, vector).relu()
    items, first, second = _states(hidden, sizes)
    if sizes.variant == "sm":
        one, other = (model[n].expand(len(clients), -1) for n in (FIRST, SECOND))
    else:
        one, other = _layer(model, FIRST, first), _layer(model, SECOND, second)
    rise = items.new_zeros(0, sizes.low, sizes.width)
    if sizes.variant != "si":
        rise = _layer(model, RISE, items).view(-1, sizes.low, sizes.width)
    return Generated(Network.of(one, other, sizes.layer), items, rise)


def _layer(model: State, name: str, x: Tensor) -> Tensor:
    return _alike(x, model[f"{name}.weight"].T, model[f"{name}.bias"])


def _alike(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A product in blocks of one fixed number of rows, the last one padded.

    For another number of rows BLAS takes another path, and gives other bits: a
    client's would depend on the shard.
    """
    blocks = torch.split(pad(x, (0, 0, 0, -len(x) % BLOCK)), BLOCK)
    if bias is None:
        done = [torch.mm(block, weight) for block in blocks]
    else:
        done = [torch.addmm(bias, block, weight) for block in blocks]
    return torch.cat(done)[: len(x)]


def _states(hidden: Tensor, sizes: Sizes) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states of the item generator and of both layers'; empty where not used."""
    empty = hidden[:, :0]
    found = torch.split(hidden, sizes.hidden, 1)
    if sizes.variant == "full":
        return found[0], found[1], found[2]
    if sizes.variant == "si":
        return empty, found[0], found[1]
    return found[0], empty, empty


def item_rows(
    model: State, sizes: Sizes, sent: Generated, sender: Tensor, item: Tensor
) -> Tensor:
    """Rows of some items in their senders' tables, (pairs, width)."""
    if sizes.variant == "si":
        return model[ITEMS].index_select(0, item)
    found = [torch.empty(0, sizes.width, dtype=sent.rise.dtype, device=item.device)]
    for part in _parts(len(item), sizes):
        low, _, _ = _low(model, sent.items, sender[part], item[part])
        rise = sent.rise.index_select(0, sender[part])
        found.append(torch.bmm(low[:, None], rise)[:, 0])
    return torch.cat(found)


def _low(
    model: State, items: Tensor, sender: Tensor, item: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Low-dimensional rows (pairs, low), and what makes them: states and weights."""
    state = items.index_select(0, sender)
    weight = model[f"{LOW}.weight"].index_select(0, item)
    low = torch.bmm(state[:, None], weight.transpose(1, 2))[:, 0]
    return low + model[f"{LOW}.bias"].index_select(0, item), state, weight


def _parts(count: int, sizes: Sizes) -> Iterator[slice]:
    size = max(1, AT_ONCE // (sizes.low * sizes.hidden))
    return (slice(start, start + size) for start in range(0, count, size))


@dataclass(frozen=True, eq=False)
class Arrived:
    """Gradients with regard to what clients received, each with its share of the sum.

    Each client's rows carry the position of their client.
    """

    clients: Tensor  # (clients,)
    sender: Tensor  # (rows,)
    item: Tensor  # (rows,)
    rows: Tensor  # (rows, width)
    network: Network


Slopes = Mapping[str, Tensor | Touched]


def through(model: State, sizes: Sizes, arrived: Arrived) -> Slopes:
    """Gradient of everything trainable: the chain rule, client by client, summed."""
    order = arrived.clients.argsort()
    user = model[USERS].index_select(0, arrived.clients)
    vector = user @ model[MEMORY]
    weight, bias = model[f"{HIDDEN}.weight"], model[f"{HIDDEN}.bias"]
    hidden = torch.addmm(bias, vector, weight.T).relu()
    items, *layers = _states(hidden, sizes)
    found, back = _items(model, sizes, arrived, items)
    for name, state, slope in zip(
        (FIRST, SECOND), layers, arrived.network.flat(), strict=True
    ):
        one, more = _through_layer(model, name, state, slope)
        found |= one
        back += more
    whole = torch.cat(back, 1) * (hidden > 0)
    into = whole @ weight
    return {
        USERS: Touched(arrived.clients[order], (into @ model[MEMORY].T)[order]),
        MEMORY: user.T @ into,
        f"{HIDDEN}.weight": whole.T @ vector,
        f"{HIDDEN}.bias": whole.sum(0),
        **found,
    }


Part = tuple[dict[str, Tensor | Touched], list[Tensor]]


def _through_layer(model: State, name: str, state: Tensor, slope: Tensor) -> Part:
    """Gradients of one generator of a layer, and of the state that it reads."""
    if name in model:  # one layer for all clients, MetaMF-SM
        return {name: slope.sum(0)}, []
    weight = model[f"{name}.weight"]
    found = {f"{name}.weight": slope.T @ state, f"{name}.bias": slope.sum(0)}
    return {**found}, [slope @ weight]


def _items(model: State, sizes: Sizes, arrived: Arrived, state: Tensor) -> Part:
    """Gradients of what makes the item tables, and of the state that it reads."""
    touched, place = torch.unique(arrived.item, return_inverse=True)
    if sizes.variant == "si":
        table = arrived.rows.new_zeros(len(touched), sizes.width)
        return {ITEMS: Touched(touched, table.index_add_(0, place, arrived.rows))}, []
    rise = torch.addmm(model[f"{RISE}.bias"], state, model[f"{RISE}.weight"].T)
    sums = _Sums.zeros(state, len(touched), sizes)
    for part in _parts(len(place), sizes):
        sums.add(
            *_low(model, state, arrived.sender[part], arrived.item[part]),
            rise.view(-1, sizes.low, sizes.width),
            arrived.rows[part],
            arrived.sender[part],
            place[part],
        )
    low = {
        f"{LOW}.weight": Touched(touched, sums.weight),
        f"{LOW}.bias": Touched(touched, sums.bias),
    }
    found, (back,) = _through_layer(model, RISE, state, sums.rise)
    return low | found, [sums.state + back]


@dataclass(frozen=True, eq=False)
class _Sums:
    """Running sums over item rows; added to in place."""

    weight: Tensor  # (items touched, low * hidden)
    bias: Tensor  # (items touched, low)
    rise: Tensor  # (clients, low * width)
    state: Tensor  # (clients, hidden)

    @classmethod
    def zeros(cls, state: Tensor, items: int, sizes: Sizes) -> "_Sums":
        clients = len(state)
        return cls(
            state.new_zeros(items, sizes.low * sizes.hidden),
            state.new_zeros(items, sizes.low),
            state.new_zeros(clients, sizes.low * sizes.width),
            torch.zeros_like(state),
        )

    def add(
        self,
        low: Tensor,
        state: Tensor,
        weight: Tensor,
        rise: Tensor,
        slope: Tensor,
        sender: Tensor,
        place: Tensor,
    ) -> None:
        """Add what some rows contribute; ``slope`` is theirs, (rows, width)."""
        outer = (low[:, :, None] * slope[:, None]).flatten(1)
        self.rise.index_add_(0, sender, outer)
        raised = rise.index_select(0, sender)
        back = torch.bmm(slope[:, None], raised.transpose(1, 2))  # (rows, 1, low)
        self.state.index_add_(0, sender, torch.bmm(back, weight)[:, 0])
        self.bias.index_add_(0, place, back[:, 0])
        outer = (back.transpose(1, 2) * state[:, None]).flatten(1)
        self.weight.index_add_(0, place, outer)
