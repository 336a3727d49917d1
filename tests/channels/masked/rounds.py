"""Uploads of every kind, ways to cut them, and the quantized sum in the clear."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Generator, Tensor

from privfed.channels.layout import Bounds, Layout, layout_of
from privfed.channels.masked.channel import Masked, Opened
from privfed.channels.plain import Plain
from privfed.data.world import Shape
from privfed.interfaces import Channel, Delivered, Opening
from privfed.messages import Rows, Spent, Total, Uploads
from privfed.seeds import Seeds
from privfed.views import RoundView, TotalView

ITEMS, WIDTH, POPULATION = 9, 4, 40
SHAPE = Shape(POPULATION, ITEMS)
ROUNDING = 1e-3  # of sums of floats, far above what it can be for these numbers


def uploads(
    seed: int, clients: int, weighted: bool = True, share: float = 0.4
) -> Uploads:
    """Random uploads of every kind; a client sends each row with chance ``share``."""
    rng = Generator().manual_seed(seed)
    sender, item = (torch.rand(clients, ITEMS, generator=rng) < share).nonzero().T
    weight = torch.randint(1, 50, (clients,), generator=rng).float()
    return Uploads(
        torch.randperm(POPULATION, generator=rng)[:clients].sort().values,
        {"items": Rows(sender, item, torch.randn(len(item), WIDTH, generator=rng))},
        {"layer": torch.randn(clients, 2, 3, generator=rng)},
        weight if weighted else None,
        users={"users": torch.randn(clients, WIDTH, generator=rng)},
        rest={"users": torch.rand(clients, generator=rng)},
    )


def some(of: Uploads, clients: Sequence[int]) -> Uploads:
    """The uploads of some clients, in the order given."""
    rows = of.rows["items"]
    at = [(rows.sender == c).nonzero()[:, 0] for c in clients]
    sender = [torch.full_like(a, k) for k, a in enumerate(at)]
    index = torch.cat([torch.zeros(0, dtype=torch.int64), *at])
    choice = torch.tensor(list(clients), dtype=torch.int64)
    return replace(
        of,
        clients=of.clients[choice],
        rows={
            "items": Rows(torch.cat(sender), rows.item[index], rows.value[index]),
        },
        dense={n: v[choice] for n, v in of.dense.items()},
        weight=None if of.weight is None else of.weight[choice],
        users={n: v[choice] for n, v in of.users.items()},
        rest={n: v[choice] for n, v in of.rest.items()},
    )


def opening(clients: Tensor, number: int = 0) -> Opening:
    return Opening(number, SHAPE, clients, Seeds(0)("channel", number))


def carry(channel: Masked, *shards: Uploads) -> tuple[Delivered, Opened]:
    """A round of these shards, and what it left on the way."""
    opened = channel.open(opening(torch.cat([s.clients for s in shards])))
    for shard in shards:
        opened, _ = channel.send(opened, shard)
    return channel.close(opened), opened


def plain(sent: Uploads) -> Total:
    channel = Plain()
    opened, _ = channel.send(channel.open(opening(sent.clients)), sent)
    return channel.close(opened).total


def survivors(sent: Uploads, opened: Opened) -> Uploads:
    """The uploads that are in the sum."""
    return some(sent, opened.round.delivered.nonzero()[0].tolist())


def everything(total: Total) -> dict[str, Tensor]:
    """All tensors of a total."""
    found = {"weight": torch.tensor(total.weight, dtype=torch.float64)}
    for kind in ("tables", "senders", "dense", "users", "rest"):
        found |= {f"{kind} {n}": v for n, v in getattr(total, kind).items()}
    return found


@dataclass
class Summing:
    """Integers of a round so far, in the clear."""

    opening: Opening
    layout: Layout | None = None
    sums: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.int64))
    clients: int = 0


@dataclass(frozen=True)
class Quantized(Channel):
    """What secure aggregation computes, without any of it: the oracle."""

    bits: int = 32
    bound: float = 8.0
    largest_weight: float = 4096.0

    shows = (RoundView, TotalView)

    def open(self, opening: Opening) -> Summing:
        return Summing(opening)

    def send(self, opened: Summing, uploads: Uploads) -> tuple[Summing, RoundView]:
        if opened.layout is None:
            bounds = Bounds(self.bound, self.largest_weight)
            most = 2 ** (self.bits - 1) - 1
            opened.layout = layout_of(uploads, opened.opening, bounds, most)
        opened.sums = opened.sums + opened.layout.pack(uploads).sum(0)
        opened.clients += len(uploads.clients)
        sizes = torch.zeros_like(uploads.clients)
        view = RoundView(round=0, clients=uploads.clients, bytes_up=sizes)
        return opened, view

    def close(self, opened: Summing) -> Delivered:
        assert opened.layout is not None
        total = opened.layout.unpack(opened.sums, opened.clients)
        view = TotalView(round=0, clients=opened.clients, total=total)
        return Delivered(total, [view], Spent())
