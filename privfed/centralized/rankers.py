"""Centralized rankers: scores of all items for all clients, (clients, items)."""

import numpy as np
import torch
from torch import Tensor

from privfed import references
from privfed.centralized.libraries import cornac, cornac_data, implicit, matrix
from privfed.data.world import World


def popularity(world: World) -> Tensor:
    """The same order for all: by training interactions."""
    return references.popularity(world).expand(world.shape.clients, -1)


def bpr(
    world: World,
    seed: int = 0,
    width: int = 32,
    epochs: int = 100,
    learning_rate: float = 0.05,
    regularization: float = 0.01,
) -> Tensor:
    """BPR-MF by SGD with item biases, one negative a step (Rendle et al., UAI 2009).

    Raises MissingExtra without cornac.
    """
    model = cornac("cornac.models").BPR(
        k=width,
        max_iter=epochs,
        learning_rate=learning_rate,
        lambda_reg=regularization,
        seed=seed,
    )
    model.fit(cornac_data(world, seed))
    return _tensor(model.u_factors @ model.i_factors.T + model.i_biases)


def als(
    world: World,
    seed: int = 0,
    width: int = 32,
    epochs: int = 15,
    confidence: float = 10.0,
    regularization: float = 1.0,
) -> Tensor:
    """Weighted matrix factorization by ALS (Hu et al., ICDM 2008).

    The objective of the original FCF: confidence 1 + ``confidence`` for what was
    taken, 1 for all else. Raises MissingExtra without implicit.
    """
    model = implicit("implicit.als").AlternatingLeastSquares(
        factors=width,
        regularization=regularization,
        alpha=1.0,
        iterations=epochs,
        num_threads=1,
        random_state=seed,
    )
    model.fit(
        matrix(world, 1 + confidence * world.train.label.numpy()), show_progress=False
    )
    return _tensor(model.user_factors @ model.item_factors.T)


def _tensor(scores: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(scores, dtype=np.float32))
