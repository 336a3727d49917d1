"""What an attacker keeps of ratings over rounds, and which of them it takes for real.

A made-up rating is known by two things: it seldom lies on the grid (a mean or a
prediction does not), and it is drawn anew each round, while a real one comes back.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.adversary import Prior
from privfed.attacks.reading.grid import Grid
from privfed.attacks.reading.rank_one import Told, by_sender, read
from privfed.data.world import Shape
from privfed.guesses import Ratings
from privfed.interfaces import State
from privfed.surfaces import InnerProduct
from privfed.views import ServerView, UploadsView

LARGEST = 5.0  # what ratings are taken to span where no scale is known
EXACT = 1e-6  # deviation of a rating that nothing disturbs


@dataclass(frozen=True, eq=False)
class Public:
    """What everybody knows of a run, as attacks on ratings need it."""

    method: InnerProduct
    shape: Shape
    defended: bool

    @classmethod
    def of(cls, prior: Prior) -> "Public":
        assert isinstance(prior.method, InnerProduct)
        return cls(prior.method, prior.shape, len(prior.defenses) > 0)

    @property
    def span(self) -> float:
        """How far apart two ratings can be."""
        low, high = self.shape.scale or (0.0, LARGEST)
        return high - low

    @property
    def grid(self) -> Grid | None:
        """What ratings lie on, if on anything."""
        if self.shape.scale is None or not self.shape.step:
            return None
        return Grid(*self.shape.scale, self.shape.step)

    def weight(self, noise: Tensor, s: Tensor, turned: Tensor) -> Tensor:
        """One over the variance of a client's ratings, (clients,); 0 if useless.

        ``noise`` is on each number of the upload, ``turned`` the relative error of s^2.
        """
        highest = max(map(abs, self.shape.scale or (LARGEST,)))
        variance = (noise / s).square() + (turned * highest / 2).square() + EXACT**2
        useful = variance.isfinite() & (variance.sqrt() < self.span / 2)
        return torch.where(useful, 1 / variance, 0.0)


def empty(prior: Prior) -> dict[str, Tensor]:
    """Nothing seen yet."""
    nothing = torch.zeros(0, dtype=torch.float64)
    return {
        "uploads": torch.zeros(prior.clients, dtype=torch.int64),
        "seen": torch.zeros(prior.clients, dtype=torch.bool),
        "settled": torch.zeros(prior.clients, dtype=torch.bool),
        "pair": torch.zeros(0, dtype=torch.int64),
        **{name: nothing.clone() for name in ("weight", "rating", "times")},
    }


def received(memory: State, view: ServerView, public: Public) -> dict[str, Tensor]:
    """The memory with the item rows that this round's clients get."""
    table = view.model[public.method.pass_(view.round).table]
    return {**memory, "table": table.clone()}  # checkpoints share no memory


def told_by(
    memory: State, view: UploadsView, public: Public, deviations: float
) -> Told:
    """A view's rows as errors times user vectors, without the clients done with."""
    how, up = public.method.pass_(view.round), view.uploads
    rows, scale = up.rows[how.table], up.scale[how.table]
    told = read(rows, len(up.clients), memory["table"], how, scale, deviations)
    return told.only(~memory["settled"][up.clients[told.sender]])


def settle(memory: State, clients: Tensor, chained: Tensor, public: Public) -> None:
    """Take down whose rows made a chain, with no defense to make up any of them."""
    if not public.defended:
        memory["settled"][clients[chained]] = True


def add(
    memory: State,
    clients: Tensor,
    pairs: tuple[Tensor, Tensor],
    rating: Tensor,
    weight: Tensor,
    public: Public,
) -> dict[str, Tensor]:
    """The memory with what one upload of each of some clients tells.

    ``pairs`` are (position among ``clients``, item); ``weight`` is one over a rating's
    variance, 0 where nothing is said of it.
    """
    sender, item = pairs
    told = (weight > 0) & rating.isfinite()
    sender, item, rating, weight = (v[told] for v in (sender, item, rating, weight))
    real = torch.ones_like(rating)
    if public.grid is not None:
        real = public.grid.holds(rating, sender, len(clients)).double()
    weight = weight * real
    read = torch.zeros(len(clients), dtype=torch.bool, device=clients.device)
    read[sender] = True
    memory["uploads"][clients[read]] += 1
    new = {
        "weight": weight,
        "rating": weight * rating,
        "times": real,
    }
    key = torch.cat([memory["pair"], clients[sender] * public.shape.items + item])
    pair, at = torch.unique(key, return_inverse=True)
    summed: Mapping[str, Tensor] = {
        name: by_sender(torch.cat([memory[name], value]), at, len(pair))
        for name, value in new.items()
    }
    return {**memory, **summed, "pair": pair}


def claims(memory: State, prior: Prior) -> Ratings:
    """The mean of what uploads told of each pair that is taken for real.

    Ratings are rounded to the grid where there is one, and cut to the scale.
    """
    client, item = memory["pair"] // prior.items, memory["pair"] % prior.items
    uploads = memory["uploads"]
    often = memory["times"] / uploads[client].clamp_min(1)
    redrawn = _redrawn(memory["times"], client, uploads, prior.items)
    real = (often > (1 + redrawn[client]) / 2) & (memory["weight"] > 0)
    rating = memory["rating"][real] / memory["weight"][real]
    if (grid := Public.of(prior).grid) is not None:
        rating = grid.nearest(rating)
    elif prior.shape.scale is not None:
        rating = rating.clamp(*prior.shape.scale)
    seen = memory["seen"].nonzero()[:, 0]
    place = torch.zeros_like(uploads)
    place[seen] = torch.arange(len(seen), device=seen.device)
    return Ratings(seen, place[client[real]], item[real], rating)


def _redrawn(times: Tensor, client: Tensor, uploads: Tensor, items: int) -> Tensor:
    """How often an item comes that the client did not rate, (clients,), in 0 to 0.9.

    Of its n items each comes in every upload, of the others each with chance f. With m
    items in an upload and m2 that come in two of them, m = n + f (items - n) and
    m2 = n + f^2 (items - n).
    """
    clients = len(uploads)
    rounds = uploads.double().clamp_min(1)
    one = by_sender(times, client, clients) / rounds
    two = by_sender(times * (times - 1), client, clients)
    two = two / (rounds * (rounds - 1)).clamp_min(1)
    real = (two * items - one.square()) / (two + items - 2 * one).clamp_min(1)
    found = (one - real) / (items - real).clamp_min(1)
    return torch.where(uploads > 1, found.clamp(0, 0.9), 0.0)
