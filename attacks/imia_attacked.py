"""What IMIA, and sign_pc, read from uploads of clients trained as IMIA trains them."""

from collections.abc import Iterator
from dataclasses import dataclass

import imia_clients
import torch
from imia_clients import Model, Samples
from torch import Tensor

from privfed.adversary import Attack, Prior
from privfed.attacks.items.imia import Rule
from privfed.attacks.items.sign_pc import SignPC
from privfed.attacks.reading import records
from privfed.data.world import World
from privfed.guesses import Items
from privfed.messages import Uploads
from privfed.methods.fedncf import FedNCF
from privfed.seeds import Seeds
from privfed.views import ModelView, UploadsView, View


@dataclass(frozen=True)
class Bench:
    """What all settings share."""

    world: World
    clients: Tensor
    seeds: Seeds

    @property
    def prior(self) -> Prior:
        """Of a server; the method stands for what is public of the training."""
        method = FedNCF(width=imia_clients.WIDTH, epochs=imia_clients.EPOCHS)
        return Prior(
            self.world.shape,
            self.seeds("attack"),
            method,
            popularity=self.world.popularity,
        )


@dataclass(frozen=True, eq=False)
class Candidates:
    """The items that each client sent, padded, and how their rows moved."""

    item: Tensor  # (clients, candidates)
    real: Tensor  # (clients, candidates) bool
    value: Tensor  # (clients, candidates, width)


def _views(model: Model, sent: Uploads, world: World) -> Iterator[View]:
    known = {imia_clients.TABLE: model.items}
    yield ModelView(round=0, model=known)
    rows = sent.rows[imia_clients.TABLE]
    yield UploadsView(
        round=0,
        clients=sent.clients,
        bytes_up=sent.bytes_up(world.shape),
        items={imia_clients.TABLE: (rows.sender, rows.item)},
        uploads=sent,
    )


def sign_pc(bench: Bench, model: Model, sent: Uploads) -> Items:
    """What sign_pc claims, as a server that knows the items' popularity."""
    attack: Attack = SignPC(uploads="first").prepare(bench.prior)
    memory = attack.start(bench.prior)
    for view in _views(model, sent, bench.world):
        if any(isinstance(view, kind) for kind in attack.sees):
            memory = attack.observe(memory, view)
    guess = attack.guess(memory, bench.prior)
    assert isinstance(guess, Items)
    return guess


def _candidates(bench: Bench, model: Model, sent: Uploads) -> Candidates:
    memory = records.begin(bench.prior)
    for view in _views(model, sent, bench.world):
        if isinstance(view, ModelView):
            memory = records.received(memory, view)
        elif isinstance(view, UploadsView):
            memory = records.sent(memory, view, len(bench.clients), 1)
    who = records.victims(memory, torch.float32)
    [upload] = who.uploads
    return Candidates(who.item, who.real, upload.rows_moved[imia_clients.TABLE])


def plain_sign(bench: Bench, model: Model, sent: Uploads) -> Items:
    """What sign_pc was when it was first measured: the smaller side of the axis."""
    seen = _candidates(bench, model, sent)
    axis = torch.linalg.svd(seen.value.double(), full_matrices=False).Vh[:, :1]
    along = (seen.value * axis).sum(2)
    up, down = seen.real & (along > 0), seen.real & (along < 0)
    fewer = up.sum(1, keepdim=True) <= down.sum(1, keepdim=True)
    return _as_items(bench, seen, torch.where(fewer, up, down))


def imia(
    bench: Bench,
    model: Model,
    sent: Uploads,
    rule: Rule,
    spread: float | None = None,
    forget: bool = True,
) -> Items:
    """IMIA, its shadows trained as its clients; ``spread`` is of their user rows.

    The released code draws a table of all users by Xavier's rule.
    """
    seen = _candidates(bench, model, sent)
    users, width = model.users.shape
    spread = (2 / (users + width)) ** 0.5 if spread is None else spread
    own = torch.randn(users, width, generator=bench.seeds("own").generator()) * spread

    def train(label: Tensor) -> Tensor:
        rows = torch.zeros_like(seen.value)
        for k, client in enumerate(bench.clients.tolist()):
            mine = seen.real[k]
            guessed = Samples(seen.item[k, mine], label[k, mine].float())
            rng = bench.seeds("shadow").of("client", client).generator()
            done = imia_clients.train(model, own[client], guessed, rng, forget=forget)
            rows[k, mine] = done.change
        return rows

    return _as_items(
        bench, seen, rule.believed(train, seen.value, seen.real, bench.clients)
    )


def oracle(bench: Bench, model: Model, sent: Uploads, rule: Rule) -> Items:
    """IMIA with a distance that is longer for every wrong label than for right ones."""
    seen = _candidates(bench, model, sent)
    real = _real(bench)[torch.arange(len(bench.clients))[:, None], seen.item]

    rng = bench.seeds("ties").generator()

    def train(label: Tensor) -> Tensor:
        gap = (label != real) + torch.rand(real.shape, generator=rng) / 2
        return seen.value + gap[..., None]

    return _as_items(
        bench, seen, rule.believed(train, seen.value, seen.real, bench.clients)
    )


def _as_items(bench: Bench, seen: Candidates, yes: Tensor) -> Items:
    chosen = torch.zeros(len(bench.clients), bench.world.shape.items, dtype=torch.bool)
    owner = torch.arange(len(chosen))[:, None].expand_as(seen.item)
    chosen[owner[seen.real], seen.item[seen.real]] = yes[seen.real]
    return Items(bench.clients, chosen.float(), chosen)


def _real(bench: Bench) -> Tensor:
    """What the clients interacted with, (clients, items) bool."""
    pairs = bench.world.train.of(bench.clients)
    size = (len(bench.clients), bench.world.shape.items)
    real = torch.zeros(size, dtype=torch.bool)
    real[pairs.sender, pairs.item] = True
    return real


def chance(bench: Bench, sent: Uploads, share: float) -> Tensor:
    """Precision and F1 of a random share of the candidates, (2, clients).

    In expectation; its recall is the share.
    """
    rows = sent.rows[imia_clients.TABLE]
    candidates = torch.bincount(rows.sender, minlength=len(bench.clients)).double()
    real = bench.world.train.counts[bench.clients] / candidates
    return torch.stack([real, 2 * real * share / (real + share)])
