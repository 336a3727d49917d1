"""A world as the libraries of the extra ``baselines`` want it."""

from collections import OrderedDict
from types import ModuleType
from typing import Any

import numpy as np

from privfed.data.encoders.extras import library
from privfed.data.world import World


def cornac(part: str) -> ModuleType:
    """A module of cornac (Salah et al., JMLR 2020); raises MissingExtra."""
    return library(part, "cornac", "this centralized reference", "baselines")


def implicit(part: str) -> ModuleType:
    """A module of implicit (Frederickson); raises MissingExtra."""
    return library(part, "implicit", "ALS", "baselines")


def surprise() -> ModuleType:
    """Surprise (Hug, JOSS 2020); raises MissingExtra."""
    return library("surprise", "scikit-surprise", "SVD and SVD++", "baselines")


def cornac_data(world: World, seed: int) -> Any:
    """Training pairs as cornac's data set, numbered as in the world.

    A pair that occurs twice counts once: cornac keeps the first.
    """
    train = world.train
    pairs, first = np.unique(
        (train.owner * world.shape.items + train.item).numpy(), return_index=True
    )
    rows = zip(
        (pairs // world.shape.items).tolist(),
        (pairs % world.shape.items).tolist(),
        train.label.numpy()[first].tolist(),
        strict=True,
    )
    return cornac("cornac.data").Dataset.build(
        list(rows),
        global_uid_map=OrderedDict((u, u) for u in range(world.shape.clients)),
        global_iid_map=OrderedDict((i, i) for i in range(world.shape.items)),
        seed=seed,
    )


def matrix(world: World, value: np.ndarray) -> Any:
    """Training pairs as a sparse matrix (clients, items); repeats add up."""
    from scipy import sparse

    at = (world.train.owner.numpy(), world.train.item.numpy())
    shape = (world.shape.clients, world.shape.items)
    return sparse.csr_matrix((value, at), shape=shape)
