"""Clients as IMIA's released code trains them, one after the other.

Yuan et al., WWW 2023; update.py, model.py and run.py: an MLP [128, 64, 32] + 1 on 64
numbers of a user and of an item, 20 epochs of Adam in batches of 64, four negatives.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from privfed.choices import choose
from privfed.data.world import World
from privfed.interfaces import Turn
from privfed.messages import Rows, Uploads
from privfed.seeds import Seeds, Stream

WIDTH, LAYERS, NEGATIVES = 64, (128, 64, 32), 4
EPOCHS, BATCH, RATE = 20, 64, 1e-3
TABLE = "items"


@dataclass(frozen=True, eq=False)
class Model:
    """What the server sends, and the users' rows, which stay with them."""

    net: nn.Sequential
    items: Tensor  # (items, width)
    users: Tensor  # (clients, width)


@dataclass(frozen=True, eq=False)
class Samples:
    """What a client trains on; an item may come twice."""

    item: Tensor  # (samples,)
    label: Tensor  # (samples,)


@dataclass(frozen=True, eq=False)
class Trained:
    """What a client's training leaves."""

    touched: Tensor  # (rows,) items, ascending
    change: Tensor  # (rows, width)
    net: nn.Sequential
    own: Tensor  # (width,)


def first(world: World, stream: Stream) -> Model:
    """The first network and tables, as torch's defaults draw them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream.key & (2**63 - 1))
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(LAYERS):
            layers += [nn.Linear(wide, narrow), nn.ReLU()]
        net = nn.Sequential(*layers, nn.Linear(LAYERS[-1], 1))
        items = torch.randn(world.shape.items, WIDTH)
        users = torch.randn(world.shape.clients, WIDTH)
    return Model(net, items, users)


def samples(world: World, client: int, rng: torch.Generator) -> Samples:
    """Each training item and its negatives: four for each, distinct among them."""
    mine = world.train.of(torch.tensor([client])).item
    free = torch.ones(world.shape.items)
    free[mine] = 0.0
    drawn = torch.multinomial(free.expand(len(mine), -1), NEGATIVES, generator=rng)
    item = torch.cat([mine[:, None], drawn], 1).flatten()
    label = torch.zeros(len(mine), 1 + NEGATIVES)
    label[:, 0] = 1.0
    return Samples(item, label.flatten())


def train(
    model: Model,
    own: Tensor,
    of: Samples,
    rng: torch.Generator,
    mu: float = 0.0,
    forget: bool = True,
) -> Trained:
    """Train a client; ``mu`` is the strength of IMIA's own defense.

    Rows that no sample touches get no gradient, so Adam leaves them alone. Without
    ``forget`` gradients add up from step to step, as in the released attack, which
    never calls zero_grad.
    """
    touched, slot = torch.unique(of.item, return_inverse=True)
    start = model.items[touched]
    rows, own = start.clone().requires_grad_(), own.clone().requires_grad_()
    net = deepcopy(model.net)
    adam = torch.optim.Adam([rows, own, *net.parameters()], lr=RATE)
    for _ in range(EPOCHS):
        for at in torch.split(torch.randperm(len(of.item), generator=rng), BATCH):
            both = torch.cat([own.expand(len(at), -1), rows[slot[at]]], 1)
            loss = binary_cross_entropy_with_logits(net(both)[:, 0], of.label[at])
            if mu:
                loss = loss + mu * ((rows - start) ** 2).sum()
            if forget:
                adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
    return Trained(touched, (rows - start).detach(), net, own.detach())


def after(world: World, model: Model, rounds: int, seeds: Seeds) -> Model:
    """The model after some rounds of 1 % of the clients, averaged in full tables."""
    each = max(1, world.shape.clients // 100)
    for number in range(rounds):
        rng = seeds("cohort", number).generator()
        drawn = torch.randperm(len(world.eligible), generator=rng)[:each]
        model = _averaged(world, model, world.eligible[drawn], seeds("round", number))
    return model


def _averaged(world: World, model: Model, clients: Tensor, stream: Stream) -> Model:
    items, users = model.items.clone(), model.users.clone()
    nets = []
    for client in clients.tolist():
        rng = stream.of("client", client).generator()
        done = train(model, model.users[client], samples(world, client, rng), rng)
        items[done.touched] += done.change / len(clients)
        users[client] = done.own
        nets.append(done.net)
    net = deepcopy(nets[0])
    with torch.no_grad():
        for name, value in net.named_parameters():
            value.copy_(torch.stack([one.get_parameter(name) for one in nets]).mean(0))
    return Model(net, items, users)


def uploads(
    world: World,
    model: Model,
    clients: Tensor,
    seeds: Seeds,
    mu: float = 0.0,
    defense: str = "",
) -> Uploads:
    """One upload of each client, under IMIA's regularizer or a defense, by its spec."""
    sent = []
    for client in clients.tolist():
        rng = seeds("train").of("client", client).generator()
        of = samples(world, client, rng)
        sent.append(train(model, model.users[client], of, rng, mu))
    up = Uploads(clients, {TABLE: _end_to_end(sent)}, scale={TABLE: RATE})
    if not defense:
        return up
    turn = Turn(0, world.shape, seeds("upload"))
    defended: Uploads = choose("defense", defense).part.on_upload(up, turn)
    return defended


def _end_to_end(sent: Sequence[Trained]) -> Rows:
    sender = [torch.full((len(one.touched),), k) for k, one in enumerate(sent)]
    item = torch.cat([one.touched for one in sent])
    return Rows(torch.cat(sender), item, torch.cat([one.change for one in sent]))
