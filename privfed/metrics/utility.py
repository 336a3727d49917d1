"""How well held-out items are ranked and ratings are predicted."""

import math

import torch
from torch import Tensor

from privfed.data.interactions import DataError
from privfed.data.world import World
from privfed.seeds import Stream

_CELLS = 4_000_000  # (client, item) cells that one chunk may hold


def draw_candidates(world: World, negatives: int, stream: Stream) -> Tensor:
    """Items that a client has never met, (clients, negatives), drawn uniformly.

    Items of a row are distinct and occur in none of the client's training,
    validation and test pairs. A row depends on the stream, the client's number and
    its own items only. Raises DataError where a client has fewer such items.
    """
    clients, items = world.shape.clients, world.shape.items
    if negatives < 1:
        raise ValueError(f"negatives must be at least 1, got {negatives}")
    met = met_pairs(world)
    free = items - torch.bincount(met // items, minlength=clients)
    if clients and int(free.min()) < negatives:
        raise DataError(
            f"{world.name}: client {int(free.argmin())} has {int(free.min())} items "
            f"that it never met, {negatives} negatives are asked for; use full ranking"
        )
    drawn, short = _by_rejection(met, clients, items, negatives, stream)
    late = stream.of("short")
    for part in torch.split(short, max(1, _CELLS // items)):
        drawn[part] = _by_sorting(met, part, items, negatives, late)
    return drawn


def met_pairs(world: World) -> Tensor:
    """What each client met in any part of a world: client * items + item, ascending."""
    parts = (world.train, world.validation, world.test)
    pairs = [part.owner * world.shape.items + part.item for part in parts]
    met: Tensor = torch.unique(torch.cat(pairs))
    return met


def _contains(ascending: Tensor, wanted: Tensor) -> Tensor:
    if not len(ascending):
        return torch.zeros_like(wanted, dtype=torch.bool)
    at = torch.searchsorted(ascending, wanted).clamp(max=len(ascending) - 1)
    return ascending[at] == wanted


def _by_rejection(
    met: Tensor, clients: int, items: int, negatives: int, stream: Stream
) -> tuple[Tensor, Tensor]:
    """First distinct unmet items of each client, and the clients with too few."""
    width = 2 * negatives + 16
    drawn = torch.zeros(clients, negatives, dtype=torch.int64)
    short = []
    for part in torch.split(torch.arange(clients), max(1, _CELLS // width)):
        client = part[:, None]
        tried = stream.integers(client, torch.arange(width), items)
        good = _first_of_its_kind(tried) & ~_contains(met, client * items + tried)
        # a stable sort puts the accepted draws first, in the order of the draws
        order = good.int().argsort(dim=1, descending=True, stable=True)
        drawn[part] = tried.gather(1, order[:, :negatives])
        short.append(part[good.sum(1) < negatives])
    return drawn, torch.cat(short) if short else torch.arange(0)


def _first_of_its_kind(value: Tensor) -> Tensor:
    """Whether a value has not occurred before it in its row, (rows, width)."""
    ascending, order = value.sort(dim=1, stable=True)
    first = torch.ones_like(value, dtype=torch.bool)
    first[:, 1:] = ascending[:, 1:] != ascending[:, :-1]
    return torch.zeros_like(first).scatter(1, order, first)


def _by_sorting(
    met: Tensor, clients: Tensor, items: int, negatives: int, stream: Stream
) -> Tensor:
    """The unmet items with the smallest random keys, (clients, negatives)."""
    item = torch.arange(items)
    key = stream.bits(clients[:, None], item)  # (clients, items)
    taken = _contains(met, clients[:, None] * items + item)
    key[taken] = torch.iinfo(torch.int64).max
    return key.topk(negatives, dim=1, largest=False).indices


def sampled_ranks(own: Tensor, others: Tensor) -> Tensor:
    """Rank of each held-out item among its candidates, (pairs,), 1 is best.

    ``own`` is (pairs,), ``others`` (pairs, candidates). A tie counts against the
    item, as in the codes of NCF, federeco, PFedRec and FedRAP. Raises
    ArithmeticError on NaN.
    """
    _refuse_nan(own, others)
    return 1 + (others >= own[:, None]).sum(1)


def full_ranks(
    scores: Tensor, seen: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor]
) -> Tensor:
    """Rank of each held-out pair among all items, (pairs,), 1 is best.

    ``scores`` is (clients, items); ``seen`` (training) and ``held`` are (sender,
    item) pairs. The client's training items and its other held-out items do not
    compete; a tie counts against the item. Raises ArithmeticError on NaN.
    """
    _refuse_nan(scores)
    own = scores[held]  # (pairs,)
    rivals = scores.clone()
    rivals[seen] = torch.nan  # NaN >= x is false: these never count
    rivals[held] = torch.nan
    chunk = max(1, _CELLS // scores.shape[1])
    parts = [
        1 + (rivals[sender] >= least[:, None]).sum(1)
        for sender, least in zip(
            torch.split(held[0], chunk), torch.split(own, chunk), strict=True
        )
    ]
    return torch.cat(parts)


def _refuse_nan(*tensors: Tensor) -> None:
    if any(bool(tensor.isnan().any()) for tensor in tensors):
        raise ArithmeticError("a score is NaN: the model diverged or divides by zero")


def hit_rate(rank: Tensor, owner: Tensor, clients: int, at: int) -> Tensor:
    """HR@K of each client: the share of its held-out items ranked K or better.

    ``rank`` and ``owner`` are (pairs,), the result is (clients,), NaN for a client
    without a pair. With one held-out item a client this is the hit rate of NCF;
    with several it is recall, hits over held-out items (FedMR, He et al. 2017).
    """
    return _mean_by(owner, (rank <= at).double(), clients)


def ndcg(rank: Tensor, owner: Tensor, clients: int, at: int) -> Tensor:
    """NDCG@K of each client: the mean of 1 / log2(rank + 1) where rank <= K.

    Each held-out item has a ranking of its own, free of the client's other
    held-out items, so its ideal gain is 1. Shapes as in ``hit_rate``.
    """
    gain = math.log(2) / (rank.double() + 1).log()
    return _mean_by(owner, torch.where(rank <= at, gain, 0.0), clients)


def _mean_by(owner: Tensor, value: Tensor, clients: int) -> Tensor:
    total = torch.zeros(clients, dtype=value.dtype).index_add(0, owner, value)
    return total / torch.bincount(owner, minlength=clients)


def mae(prediction: Tensor, label: Tensor) -> float:
    """Mean absolute error over all ratings, (ratings,) each."""
    return float(_errors(prediction, label).abs().mean())


def mse(prediction: Tensor, label: Tensor) -> float:
    """Mean squared error over all ratings, (ratings,) each."""
    return float(_errors(prediction, label).square().mean())


def rmse(prediction: Tensor, label: Tensor) -> float:
    """Root of the mean squared error over all ratings."""
    return math.sqrt(mse(prediction, label))


def _errors(prediction: Tensor, label: Tensor) -> Tensor:
    if prediction.shape != label.shape or not len(label):
        raise ValueError(
            f"predictions {tuple(prediction.shape)} and labels {tuple(label.shape)} "
            "must have one shape and hold at least one rating"
        )
    error = prediction.double() - label.double()
    if not bool(error.isfinite().all()):
        raise ArithmeticError("a prediction or a label is not finite")
    return error
