"""Generated populations: small, deterministic, and with a known answer."""

import numpy as np
import torch

from privfed.data.interactions import Interactions, Scale


def demo(
    seed: int = 0, users: int = 300, items: int = 240, tastes: int = 6
) -> Interactions:
    """A world to try things on: two item modalities, a long tail, real signal.

    Every user and item has a hidden taste vector. A user draws items without
    replacement with log-odds popularity (Zipf) + taste match, and rates them
    from 1 to 5 by taste match, the item's quality and the user's mood; ``image`` and
    ``text`` are two different noisy views of the items' tastes. Gender, age and
    occupation follow the user's taste, not without exceptions.
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
        rating=_ratings(seed, user_taste, item_taste, user, item),
        time=torch.from_numpy(np.concatenate([np.arange(c) for c in counts])),
        scale=Scale(1.0, 5.0, 1.0),
        attributes=_facts(seed, user_taste),
        features={
            "image": _view(rng, item_taste, 48, 0.5),
            "text": _view(rng, item_taste, 32, 0.3),
        },
    )


def _ratings(
    seed: int,
    user_taste: np.ndarray,
    item_taste: np.ndarray,
    user: np.ndarray,
    item: np.ndarray,
) -> torch.Tensor:
    """Stars that follow taste, quality and mood, and a little noise."""
    rng = np.random.default_rng([seed, 0x5A])
    quality = 0.5 * rng.normal(size=len(item_taste))
    mood = 0.4 * rng.normal(size=len(user_taste))
    match = (user_taste[user] * item_taste[item]).sum(1)
    stars = 2.6 + 1.6 * match + quality[item] + mood[user]
    stars += 0.5 * rng.normal(size=len(stars))
    return torch.from_numpy(np.clip(np.rint(stars), 1, 5)).float()


def _facts(seed: int, user_taste: np.ndarray) -> dict[str, tuple[str, ...]]:
    """Who a user is, by taste: gender, age in years and occupation.

    Who likes the first half of the tastes is likelier a man. Years grow with the place
    of the tastes. Most have the occupation of their strongest taste.
    """
    rng = np.random.default_rng([seed, 0xA7])
    users, tastes = user_taste.shape
    half = np.where(np.arange(tastes) < tastes / 2, 1.0, -1.0)
    man = rng.random(users) < 1 / (1 + np.exp(-0.8 - 3.0 * user_taste @ half))
    share = user_taste / user_taste.sum(1, keepdims=True)
    place = share @ np.linspace(0.0, 1.0, tastes)
    years = np.clip(12 + 50 * place + 6 * rng.normal(size=users), 8, 80).astype(int)
    work = np.where(
        rng.random(users) < 0.7,
        user_taste.argmax(1),
        rng.integers(tastes, size=users),
    )
    return {
        "gender": tuple("M" if one else "F" for one in man),
        "age": tuple(str(one) for one in years),
        "occupation": tuple(f"trade {one}" for one in work),
    }


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
