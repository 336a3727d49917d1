"""Splitting interactions into what clients train on and what is held out.

A split is a part for each interaction (training, validation, test); the world is
the same interactions grouped by part. He et al., Neural Collaborative Filtering,
WWW 2017 (leave one out); Lin et al., MetaMF, SIGIR 2020 (ratio).
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from privfed.data.attributes import classes
from privfed.data.interactions import (
    TEST,
    TRAIN,
    VALIDATION,
    DataError,
    Interactions,
)
from privfed.data.world import Shape, Task, World, ragged
from privfed.seeds import Seeds

_NOBODYS = 3  # a part of the data that no device has
FEWEST = 3  # interactions of a user who has held-out ones, in leave one out


def leave_one_out(data: Interactions, task: Task = "ranking") -> World:
    """Each user's last interaction is test, the one before it validation.

    Last in time, and among equal times last in file order, as in undated data. A
    user with fewer than three interactions keeps them all in training.
    """
    every = torch.ones(len(data), dtype=torch.bool)
    return _world(data, _latest(data, every), task)


def warm(data: Interactions, task: Task = "ranking") -> World:
    """Leave one out by time, where somebody else trains on every held-out item.

    Where nobody would, the interactions held out with that item go back to training
    and the user's next latest are held out instead, until all are warm. A pair that
    a user repeats is never held out. A user with fewer than two interactions to
    hold out, or three in all, keeps them all in training.
    """
    usable = _met_once(data)
    while True:
        part = _latest(data, usable)
        trained = torch.bincount(data.item[part == TRAIN], minlength=data.items)
        cold = (part != TRAIN) & (trained[data.item] == 0)
        if not bool(cold.any()):
            return _world(data, part, task)
        usable = usable & ~cold


def _met_once(data: Interactions) -> Tensor:
    """Mark interactions whose pair of user and item occurs once."""
    key = data.user * data.items + data.item
    _, back, counts = torch.unique(key, return_inverse=True, return_counts=True)
    once: Tensor = counts[back] == 1
    return once


def _latest(data: Interactions, usable: Tensor) -> Tensor:
    """Each user's last usable interaction is test, the one before it validation."""
    before = torch.cat([torch.zeros(1, dtype=torch.int64), usable.cumsum(0)])
    end = before[data.offsets[1:]]  # usable ones up to each user's last, (users,)
    enough = (end - before[data.offsets[:-1]] >= 2) & (data.offsets.diff() >= FEWEST)
    from_end = end[data.user] - before[1:]
    held = usable & enough[data.user]
    part = torch.full_like(data.user, TRAIN)
    part[held & (from_end == 0)] = TEST
    part[held & (from_end == 1)] = VALIDATION
    return part


def by_ratio(
    data: Interactions,
    seed: int,
    ratios: tuple[float, float, float] = (0.8, 0.1, 0.1),
    task: Task = "ranking",
) -> World:
    """Each user's interactions at random in these shares, rounded half up.

    Every user keeps at least one in training. The draw is keyed by user and item,
    so the order of the source's rows does not change it.
    """
    _check_ratios(ratios)
    draw = Seeds(seed)("split").bits(data.user, data.item)
    shuffled = torch.argsort(draw, stable=True)
    by_user = shuffled[torch.argsort(data.user[shuffled], stable=True)]
    rank = torch.empty_like(by_user)  # within the user, in the order drawn
    rank[by_user] = torch.arange(len(data)) - data.offsets[data.user]
    counts = data.offsets.diff()
    tests = torch.minimum(_share(counts, ratios[2]), (counts - 1).clamp(min=0))
    rest = (counts - 1 - tests).clamp(min=0)
    validations = torch.minimum(_share(counts, ratios[1]), rest)
    part = torch.full_like(data.user, TRAIN)
    part[rank < (tests + validations)[data.user]] = VALIDATION
    part[rank < tests[data.user]] = TEST
    return _world(data, part, task)


def given(data: Interactions, task: Task = "ranking") -> World:
    """The split that the source fixes. Raises DataError where it fixes none."""
    if data.part is None:
        raise DataError(
            f"{data.name}: the source fixes no split; choose leave-one-out or ratio"
        )
    return _world(data, data.part.long(), task)


def by_clients(
    data: Interactions,
    seed: int,
    support: float = 0.8,
    query: float = 0.2,
    ratios: tuple[float, float, float] = (0.8, 0.1, 0.1),
) -> World:
    """Some clients train, others validate, the rest test: what each chooses next.

    A client that trains keeps all its records. Of the others' the last ``query``
    share is held out, and the ``support`` share right before it is theirs to adapt
    to; nobody sees what is older (FedMeta, Chen et al., 2018).
    """
    _check_ratios(ratios)
    check_shares(support, query)
    rank = Seeds(seed)("clients").bits(torch.arange(data.users), torch.zeros(1).long())
    role = torch.full((data.users,), TRAIN)
    drawn = rank.argsort(stable=True)
    tests, validations = (round(data.users * ratio) for ratio in (ratios[2], ratios[1]))
    role[drawn[:tests]] = TEST
    role[drawn[tests : tests + validations]] = VALIDATION
    counts = data.offsets.diff()
    held = _share(counts, query).clamp(min=1)
    known = torch.minimum(_share(counts, support).clamp(min=1), counts - held)
    from_end = data.offsets[1:][data.user] - 1 - torch.arange(len(data))
    owner = role[data.user]
    part = torch.full_like(data.user, _NOBODYS)
    part[from_end < (held + known)[data.user]] = TRAIN
    part[from_end < held[data.user]] = owner[from_end < held[data.user]]
    part[owner == TRAIN] = TRAIN
    return replace(_world(data, part, "choice"), learners=role == TRAIN)


def check_shares(support: float, query: float) -> None:
    """Raise ValueError where a client cannot have both shares of its records."""
    if not (0 < support < 1 and 0 < query < 1 and support + query <= 1 + 1e-9):
        raise ValueError(
            "support and query must be shares of at most 1 together, got "
            f"{support} and {query}"
        )


def _share(counts: Tensor, ratio: float) -> Tensor:
    """Half up, with room for the rounding of ratio itself."""
    return torch.floor(counts.double() * ratio + 0.5 + 1e-9).long()


def _check_ratios(ratios: tuple[float, float, float]) -> None:
    usable = all(math.isfinite(ratio) and ratio >= 0 for ratio in ratios)
    if not usable or ratios[0] <= 0 or abs(sum(ratios) - 1) > 1e-6:
        raise ValueError(
            f"ratios must be shares that add up to 1, training's above 0, got {ratios}"
        )


def _world(data: Interactions, part: Tensor, task: Task) -> World:
    labels = _labels(data, task)
    train, validation, test = (
        ragged(
            data.users,
            data.user[chosen],
            data.item[chosen],
            labels[chosen],
            data.context[chosen],
        )
        for chosen in (part == which for which in (TRAIN, VALIDATION, TEST))
    )
    return World(
        name=data.name,
        shape=Shape(
            data.users,
            data.items,
            widths(data.features),
            data.context.shape[1],
            _ends(data) if task == "rating" else None,
            data.scale.step if data.scale and task == "rating" else 0.0,
        ),
        train=train,
        validation=validation,
        test=test,
        task=task,
        features=data.features,
        candidates=data.candidates,
        attributes=classes(data.attributes),
        fingerprint=_fingerprint(data, part, task),
    )


def _ends(data: Interactions) -> tuple[float, float] | None:
    """The ends of the rating scale; where no source states it, of the ratings."""
    if data.scale is not None:
        return data.scale.low, data.scale.high
    if data.rating is None or not len(data):
        return None
    return float(data.rating.min()), float(data.rating.max())


def _labels(data: Interactions, task: Task) -> Tensor:
    if task != "rating":
        return torch.ones(len(data))
    if data.rating is None:
        raise DataError(
            f"{data.name}: there are no ratings to predict; choose a method that ranks"
        )
    return data.rating


def widths(features: Mapping[str, Tensor]) -> dict[str, int]:
    """Width of each modality."""
    return {modality: matrix.shape[1] for modality, matrix in features.items()}


def _fingerprint(data: Interactions, part: Tensor, task: Task) -> str:
    digest = hashlib.sha256(f"{data.fingerprint} {task}".encode())
    digest.update(part.to(torch.int8).numpy().tobytes())
    if data.candidates is not None:
        digest.update(data.candidates.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
