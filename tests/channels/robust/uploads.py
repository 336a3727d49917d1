"""Random uploads, in shards, through a channel."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor

from privfed.data.world import Shape
from privfed.interfaces import Channel
from privfed.messages import Rows, Total, Uploads
from tests.worlds import opening

CLIENTS, ITEMS, WIDTH = 40, 6, 3
SHAPE = Shape(CLIENTS, ITEMS)


def uploads(
    seed: int, clients: int, share: float = 0.7, weighted: bool = False
) -> Uploads:
    """Each client sends each row with chance ``share``; item 0 has no sender."""
    rng = Generator().manual_seed(seed)
    sent = torch.rand(clients, ITEMS, generator=rng) < share
    sent[:, 0] = False
    sender, item = sent.nonzero(as_tuple=True)
    value = torch.randn(len(item), WIDTH, generator=rng)
    dense = {
        "layer.weight": torch.randn(clients, 2, 4, generator=rng),
        "layer.bias": torch.randn(clients, 2, generator=rng),
    }
    weight = torch.randint(1, 50, (clients,), generator=rng).float()
    return Uploads(
        torch.randperm(CLIENTS, generator=rng)[:clients],
        {"items": Rows(sender, item, value)},
        dense,
        weight if weighted else None,
        users={"users": torch.randn(clients, WIDTH, generator=rng)},
        rest={"users": torch.rand(clients, generator=rng)},
    )


def some(of: Uploads, clients: Sequence[int]) -> Uploads:
    """The uploads of some clients, in the order given."""
    rows = of.rows["items"]
    at = [(rows.sender == c).nonzero()[:, 0] for c in clients]
    sender = [torch.full_like(a, k) for k, a in enumerate(at)]
    index, choice = torch.cat(at), torch.tensor(clients)
    return Uploads(
        of.clients[choice],
        {"items": Rows(torch.cat(sender), rows.item[index], rows.value[index])},
        {n: v[choice] for n, v in of.dense.items()},
        None if of.weight is None else of.weight[choice],
        users={n: v[choice] for n, v in of.users.items()},
        rest={n: v[choice] for n, v in of.rest.items()},
    )


def carry(channel: Channel, *shards: Uploads) -> Total:
    """The total of one round."""
    clients = torch.cat([shard.clients for shard in shards])
    opened = channel.open(replace(opening(SHAPE), clients=clients))
    for shard in shards:
        opened, _ = channel.send(opened, shard)
    return channel.close(opened).total


def everything(total: Total) -> dict[str, Tensor]:
    """All tensors of a total."""
    return {
        **total.tables,
        **total.dense,
        **total.users,
        "rest": total.rest["users"],
        "senders": total.senders["items"],
    }


def vectors(of: Uploads) -> Tensor:
    """Whole uploads, (clients, numbers): the table, then dense tensors, then rest."""
    rows, count = of.rows["items"], len(of.clients)
    table = torch.zeros(count, ITEMS, WIDTH)
    table[rows.sender, rows.item] = rows.value
    parts = [table, *of.dense.values(), *of.rest.values()]
    return torch.cat([part.reshape(count, -1) for part in parts], 1)


def flat(total: Total) -> Tensor:
    """A total laid out as ``vectors``, (numbers,)."""
    parts = [*total.tables.values(), *total.dense.values(), *total.rest.values()]
    return torch.cat([part.reshape(-1) for part in parts])
