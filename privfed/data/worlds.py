"""Generated populations: small, deterministic, and with a known answer."""

import numpy as np
import torch

from privfed.data.interactions import Interactions


def demo(
    seed: int = 0, users: int = 300, items: int = 240, tastes: int = 6
) -> Interactions:
    """A world to try things on: two item modalities, a long tail, real signal.

    Every user and item has a hidden taste vector. A user draws items without
    replacement with log-odds popularity (Zipf) + taste match; ``image`` and
    ``text`` are two different noisy views of the items' tastes.
    """
    rng = np.random.default_rng([seed, 0xDE])
    item_taste = _peaked(rng, items, tastes)
    user_taste = _peaked(rng, users, tastes)
    popularity = -0.8 * np.log(1 + rng.permutation(items))
    log_odds = popularity + 5.0 * user_taste @ item_taste.T
    order = np.argsort(-(log_odds + rng.gumbel(size=log_odds.shape)), axis=1)
    counts = np.clip(rng.lognormal(3.1, 0.5, users).astype(int), 8, items // 3)
    user = np.repeat(np.arange(users), counts)
    item = np.concatenate(
        [rng.permutation(o[:c]) for o, c in zip(order, counts, strict=True)]
    )
    return Interactions(
        name="demo",
        users=users,
        items=items,
        user=torch.from_numpy(user),
        item=torch.from_numpy(item),
        time=torch.from_numpy(np.concatenate([np.arange(c) for c in counts])),
        features={
            "image": _view(rng, item_taste, 48, 0.5),
            "text": _view(rng, item_taste, 32, 0.3),
        },
    )


def checkerboard(size: int = 8) -> Interactions:
    """Even users take even items, odd users odd ones: the answer is plain to see."""
    user, item = np.indices((size, size)).reshape(2, -1)
    mine = (user + item) % 2 == 0
    return Interactions(
        name="checkerboard",
        users=size,
        items=size,
        user=torch.from_numpy(user[mine]),
        item=torch.from_numpy(item[mine]),
    )


def _peaked(rng: np.random.Generator, count: int, tastes: int) -> np.ndarray:
    """Unit vectors with one or two strong tastes each, (count, tastes)."""
    drawn = rng.dirichlet(np.full(tastes, 0.3), count)
    unit: np.ndarray = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit


def _view(
    rng: np.random.Generator, taste: np.ndarray, width: int, noise: float
) -> torch.Tensor:
    """A noisy random projection with rows of length one, as encoders give them."""
    drawn = taste @ rng.normal(size=(taste.shape[1], width)) / width**0.5
    drawn += noise * rng.normal(size=drawn.shape) / width**0.5
    unit = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return torch.from_numpy(unit).float()
