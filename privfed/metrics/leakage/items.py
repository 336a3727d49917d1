"""How much of who-interacted-with-what an attack got right, client by client."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from privfed.adversary import Prior
from privfed.data.world import Ragged
from privfed.guesses import Items
from privfed.metrics.leakage.judged import Judged, Truth
from privfed.metrics.score import mean_of

_CELLS = 4_000_000  # (client, item) cells of one chunk


def judge(guess: Items, truth: Truth, prior: Prior) -> Judged:
    """Figures of a claim, beside those of as many items by popularity alone."""
    world = truth.world
    known = replace(prior, popularity=world.popularity)
    mean = len(world.train.item) / max(1, int((world.train.counts > 0).sum()))
    blind = prior_guess(known, guess.clients, mean)
    ours, theirs = (score(one, world.train) for one in (guess, blind))
    return Judged(
        {name: mean_of(value) for name, value in ours.items()},
        {name: mean_of(value) for name, value in theirs.items()},
        "f1",
    )


def score(guess: Items, truth: Ragged) -> dict[str, Tensor]:
    """Each figure for each client that the attack saw, (seen,) float64.

    ``precision``, ``recall`` and ``f1`` judge the decision ``chosen``; choosing
    nothing scores 0. ``auc`` judges the ranking ``score``: the chance that a true
    item outranks a false one, a tie counting half. ``f1_at_count`` is the F1 of the
    client's n best scored items, n its true count, in expectation where scores
    tie: a ceiling for an attack that must guess n.

    A client without any true item is NaN throughout, one without a false item has
    NaN for ``auc``. Raises ArithmeticError where a score is not finite.
    """
    items = guess.score.shape[1]
    parts = [
        _score(guess, truth, position)
        for position in torch.split(
            torch.arange(len(guess.clients)), max(1, _CELLS // items)
        )
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _score(guess: Items, truth: Ragged, position: Tensor) -> dict[str, Tensor]:
    scores = guess.score[position]
    if not bool(scores.isfinite().all()):
        raise ArithmeticError("an attack's score is not finite")
    real = _dense(truth, guess.clients[position], scores.shape[1])
    figures = _decision(guess.chosen[position], real)
    figures["auc"] = _auc(scores, real)
    figures["f1_at_count"] = _hits_at_count(scores, real) / real.sum(1)
    none = ~real.any(1)
    return {name: value.masked_fill(none, torch.nan) for name, value in figures.items()}


def _dense(truth: Ragged, clients: Tensor, items: int) -> Tensor:
    pairs = truth.of(clients)
    real = torch.zeros(len(clients), items, dtype=torch.bool)
    real[pairs.sender, pairs.item] = True
    return real


def _decision(chosen: Tensor, real: Tensor) -> dict[str, Tensor]:
    hits = (chosen & real).sum(1).double()
    claims, facts = chosen.sum(1), real.sum(1)
    return {
        "precision": hits / claims.clamp(min=1),
        "recall": hits / facts.clamp(min=1),
        "f1": 2 * hits / (claims + facts).clamp(min=1),
    }


def _auc(scores: Tensor, real: Tensor) -> Tensor:
    """Mann and Whitney's U of the true items, over its largest value."""
    from scipy import stats

    rank = torch.from_numpy(stats.rankdata(np.asarray(scores), axis=1))
    yes = real.sum(1).double()
    no = real.shape[1] - yes
    return ((rank * real).sum(1) - yes * (yes + 1) / 2) / (yes * no)


def _hits_at_count(scores: Tensor, real: Tensor) -> Tensor:
    """Expected true items among as many best scored, ties broken at random."""
    count = real.sum(1)  # (clients,)
    last = (count - 1).clamp(min=0)[:, None]
    least = scores.sort(dim=1, descending=True).values.gather(1, last)
    above, level = scores > least, scores == least
    places = (count - above.sum(1)).double() / level.sum(1)
    return (above & real).sum(1) + (level & real).sum(1) * places


def prior_guess(prior: Prior, clients: Tensor, mean_count: float) -> Items:
    """What the adversary would claim had it seen nothing: the baseline to beat.

    Every client gets the ``mean_count`` most popular items where the threat model
    grants popularity. Where it does not, all scores are equal (AUC one half) and
    each client gets as many items at random, from the prior's stream.
    """
    if not 0 <= mean_count <= prior.items:
        raise ValueError(
            f"mean_count must lie between 0 and {prior.items}, got {mean_count}"
        )
    count = round(mean_count)
    if prior.popularity is None:
        return _blind_guess(prior, clients, count)
    common = prior.popularity.double()
    chosen = torch.zeros(prior.items, dtype=torch.bool)
    chosen[common.argsort(descending=True, stable=True)[:count]] = True
    shape = (len(clients), prior.items)
    return Items(clients, common.expand(shape), chosen.expand(shape))


def _blind_guess(prior: Prior, clients: Tensor, count: int) -> Items:
    chosen = torch.zeros(len(clients), prior.items, dtype=torch.bool)
    stream, item = prior.stream.of("prior-guess"), torch.arange(prior.items)
    chunk = max(1, _CELLS // prior.items)
    for position in torch.split(torch.arange(len(clients)), chunk):
        key = stream.bits(clients[position, None], item)
        drawn = key.topk(count, dim=1).indices
        chosen[position] = chosen[position].scatter(1, drawn, True)
    return Items(clients, torch.zeros(1).expand(chosen.shape), chosen)
