"""What a server sees of one round of training, for tests of attacks."""

from collections.abc import Iterator

import torch
from torch import Tensor

from privfed.adversary import Attack, Prior
from privfed.channels.plain import Plain
from privfed.data.world import Shape, World
from privfed.guesses import Items
from privfed.interfaces import Round
from privfed.messages import Rows, Uploads
from privfed.methods.fedavg import FedAvg
from privfed.methods.local_sgd import LocalSGD
from privfed.seeds import Seeds
from privfed.views import UploadsView, View
from tests.worlds import opening, shards

SEEDS = Seeds(6)


def prior_of(
    clients: int, items: int, negatives: int, popularity: Tensor | None = None
) -> Prior:
    method = FedAvg(negatives=negatives)
    shape = Shape(clients, items)
    return Prior(shape, SEEDS("attack"), method, popularity=popularity)


def trained(method: LocalSGD, world: World, rounds: int = 1) -> Iterator[UploadsView]:
    """The views of the first rounds, shard by shard; the model stays as it was."""
    model, private = method.init(world.shape, SEEDS("init"))
    channel = Plain()
    for number in range(rounds):
        opened = channel.open(opening(world.shape))
        for cohort in shards(world, 3):
            now = Round(number, SEEDS("train", number), SEEDS("once"))
            up = method.train(model, private, cohort, now).uploads
            opened, view = channel.send(opened, up)
            yield view


def view_of(clients: Tensor, tables: dict[str, Rows], round: int = 0) -> UploadsView:
    """A view of hand-made rows."""
    up = Uploads(clients, tables)
    items = {n: (r.sender, r.item) for n, r in tables.items()}
    return UploadsView(
        round=round,
        clients=clients,
        bytes_up=torch.zeros(len(clients), dtype=torch.int64),
        items=items,
        uploads=up,
    )


def guess(attack: Attack, prior: Prior, *views: View) -> Items:
    memory = attack.start(prior)
    for view in views:
        memory = attack.observe(memory, view)
    found = attack.guess(memory, prior)
    assert isinstance(found, Items)
    return found


def truth(world: World, clients: Tensor) -> Tensor:
    """Who interacted with what, (clients, items) bool."""
    mask = torch.zeros(world.shape.clients, world.shape.items, dtype=torch.bool)
    mask[world.train.owner, world.train.item] = True
    return mask[clients]
