"""What a server of matrix factorization sees, for tests of attacks on ratings."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor

from privfed.adversary import Attack, Prior
from privfed.channels.plain import Plain
from privfed.data.world import World
from privfed.guesses import Ratings
from privfed.interfaces import Defense, Round, Turn
from privfed.messages import Uploads
from privfed.methods.fedmf import FedMF
from privfed.methods.fedrec import FedRec
from privfed.seeds import Seeds
from privfed.views import ServerView, View
from tests.worlds import opening, shards, uneven

SEEDS = Seeds(4)
COUNTS = (24, 31, 18, 0, 40, 26, 35, 22, 29, 20)
Change = Callable[[Uploads], Uploads]


def stars(counts: Sequence[int] = COUNTS, items: int = 80, step: float = 1.0) -> World:
    """Ratings between 1 and 5 of random items, in steps of ``step``."""
    found = uneven(counts, items)
    rng = Generator().manual_seed(5)
    many = round(4 / step) + 1
    drawn = torch.randint(many, found.train.label.shape, generator=rng)
    label = 1 + step * drawn.float()
    shape = replace(found.shape, scale=(1.0, 5.0), step=step)
    train = replace(found.train, label=label)
    return replace(found, shape=shape, train=train, task="rating")


def shown(
    method: FedMF | FedRec,
    of: World,
    rounds: int = 2,
    defense: Defense | None = None,
    size: int = 4,
    change: Change = lambda up: up,
) -> Iterator[View]:
    """What the server holds and gets, round by round and shard by shard."""
    model, private = method.init(of.shape, SEEDS("init"))
    for number in range(rounds):
        yield ServerView(round=number, model=model)
        channel = Plain()
        opened = channel.open(opening(of.shape, number))
        after = {name: value.clone() for name, value in private.items()}
        for cohort in shards(of, size):
            now = Round(number, SEEDS("train", number), SEEDS("once"))
            trained = method.train(model, private, cohort, now)
            for name, value in trained.private.items():
                after[name][cohort.clients] = value
            up = change(trained.uploads)
            if defense is not None:
                up = defense.on_upload(
                    up, Turn(number, of.shape, SEEDS("upload", number))
                )
            opened, view = channel.send(opened, up)
            yield view
        model = method.apply(model, channel.close(opened).total)
        private = after


def claimed(
    attack: Attack,
    method: FedMF | FedRec,
    of: World,
    views: Iterator[View] | Sequence[View],
    defenses: Sequence[Defense] = (),
) -> Ratings:
    """What an attack claims after some views."""
    prior = Prior(of.shape, SEEDS("attack"), method, defenses)
    ready = attack.prepare(prior)
    memory = ready.start(prior)
    for view in views:
        memory = ready.observe(memory, view)
    found = ready.guess(memory, prior)
    assert isinstance(found, Ratings)
    return found


def table(found: Ratings, of: World) -> Tensor:
    """What is claimed of every pair, (clients, items); NaN of nothing."""
    told = torch.full((of.shape.clients, of.shape.items), torch.nan).double()
    told[found.clients[found.sender], found.item] = found.rating
    return told


def truth(of: World) -> Tensor:
    """Every rating, NaN where there is none, (clients, items)."""
    real = torch.full((of.shape.clients, of.shape.items), torch.nan).double()
    real[of.train.owner, of.train.item] = of.train.label.double()
    return real


def all_right(found: Ratings, of: World) -> bool:
    """Whether every rating is claimed, no other, and all of them right."""
    return bool(torch.equal(table(found, of).nan_to_num(-1), truth(of).nan_to_num(-1)))


def share_right(found: Ratings, of: World) -> float:
    """Share of all ratings that are told exactly."""
    real = truth(of)
    rated = ~real.isnan()
    return float((table(found, of) == real)[rated].double().mean())
