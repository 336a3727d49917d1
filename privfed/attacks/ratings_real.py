"""What an attacker keeps of ratings over rounds, and which of them it takes for real.

A made-up rating is known by two things: it seldom lies on the grid (a mean or a
prediction does not), and it is drawn anew each round, while a real one comes back.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from privfed.adversary import Prior
from privfed.attacks.grid import Grid
from privfed.attacks.rank_one import Told, by_sender
from privfed.guesses import Ratings
from privfed.interfaces import InnerProduct, Pass, State

_ROUNDS = 2048  # whose public facts are kept; later ones are taken as the last
_QUANTILE, _OF_NORMAL = 0.15, 0.189  # that share of a normal's deviations are below


def empty(prior: Prior) -> dict[str, Tensor]:
    """Nothing seen yet; what is public of each round, and of the scale."""
    assert isinstance(prior.method, InnerProduct)
    passes = [prior.method.pass_(number) for number in range(_ROUNDS)]
    low, high = prior.shape.scale or (0.0, 0.0)
    nothing = torch.zeros(0, dtype=torch.float64)
    return {
        "public": torch.tensor([_facts(one) for one in passes], dtype=torch.float64),
        "scale": torch.tensor([low, high, prior.shape.step], dtype=torch.float64),
        "defended": torch.tensor(len(prior.defenses) > 0),
        "items": torch.tensor(prior.items),
        "uploads": torch.zeros(prior.clients, dtype=torch.int64),
        "seen": torch.zeros(prior.clients, dtype=torch.bool),
        "settled": torch.zeros(prior.clients, dtype=torch.bool),
        "pair": torch.zeros(0, dtype=torch.int64),
        **{name: nothing.clone() for name in ("weight", "rating", "times")},
    }


def _facts(one: Pass) -> list[float]:
    words = (one.moves == "each", one.reads == "new", one.mean)
    return [one.rate, one.decay, one.factor, one.steps, *map(float, words)]


def pass_of(memory: State, round: int) -> Pass:
    """How devices trained in a round."""
    facts = memory["public"][min(round, _ROUNDS - 1)].tolist()
    rate, decay, factor, steps, each, new, mean = facts
    return Pass(
        rate,
        decay,
        factor,
        moves="each" if each else "all",
        reads="new" if new else "old",
        mean=bool(mean),
        steps=int(steps),
    )


def open_questions(memory: State, clients: Tensor, told: Told) -> Told:
    """The rows of clients whose ratings are not known for certain yet."""
    return told.only(~memory["settled"][clients[told.sender]])


def settle(memory: State, clients: Tensor, chained: Tensor) -> None:
    """Take down whose rows made a chain, with no defense to make up any of them."""
    if not memory["defended"]:
        memory["settled"][clients[chained]] = True


def grid_of(memory: State) -> Grid:
    """The scale; a step of 0 says that ratings lie on no grid."""
    return Grid(*memory["scale"].tolist())


def add(
    memory: State,
    clients: Tensor,
    pairs: tuple[Tensor, Tensor],
    rating: Tensor,
    weight: Tensor,
) -> dict[str, Tensor]:
    """The memory with what one upload of each of some clients tells.

    ``pairs`` are (position among ``clients``, item); ``weight`` is one over a rating's
    variance, 0 where nothing is said of it.
    """
    sender, item = pairs
    told = (weight > 0) & rating.isfinite()
    sender, item, rating, weight = (v[told] for v in (sender, item, rating, weight))
    real = looks_real(rating, sender, len(clients), grid_of(memory)).double()
    weight = weight * real
    read = torch.zeros(len(clients), dtype=torch.bool, device=clients.device)
    read[sender] = True
    memory["uploads"][clients[read]] += 1
    new = {
        "weight": weight,
        "rating": weight * rating,
        "times": real,
    }
    key = torch.cat([memory["pair"], clients[sender] * memory["items"] + item])
    pair, at = torch.unique(key, return_inverse=True)
    summed: Mapping[str, Tensor] = {
        name: by_sender(torch.cat([memory[name], value]), at, len(pair))
        for name, value in new.items()
    }
    return {**memory, **summed, "pair": pair}


def looks_real(rating: Tensor, sender: Tensor, clients: int, grid: Grid) -> Tensor:
    """Whether ratings lie as near to the grid as the best of their client's do.

    The spread of real ones is told by the nearest: at least one in six is taken to be
    real.
    """
    if grid.step == 0:
        return torch.ones_like(rating, dtype=torch.bool)
    away = (rating - grid.nearest(rating)).abs() / grid.step
    order = away.argsort(stable=True)
    order = order[sender[order].argsort(stable=True)]
    counts = torch.bincount(sender, minlength=clients)
    first = counts.cumsum(0) - counts
    at = first + (counts * _QUANTILE).long()
    spread = torch.zeros(clients, dtype=rating.dtype, device=rating.device)
    some = counts > 0
    spread[some] = away[order[at[some]]] / _OF_NORMAL
    return away <= (8 * spread).clamp(0.05, 0.5)[sender]


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
    if prior.shape.step:
        rating = grid_of(memory).nearest(rating)
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
