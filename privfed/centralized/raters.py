"""Centralized raters: predictions of given pairs, (pairs,).

Predictions are cut to the range of the training ratings.
"""

import numpy as np
import torch
from torch import Tensor

from privfed import references
from privfed.centralized.libraries import cornac, cornac_data, surprise
from privfed.data.world import Ragged, World


def user_mean(world: World, held: Ragged) -> Tensor:
    """Each client's mean training rating."""
    return references.user_means(world)[held.owner]


def item_mean(world: World, held: Ragged) -> Tensor:
    """Each item's mean training rating."""
    return references.item_means(world)[held.item]


def pmf(
    world: World,
    held: Ragged,
    seed: int = 0,
    width: int = 20,
    epochs: int = 50,
    learning_rate: float = 0.005,
    regularization: float = 0.1,
) -> Tensor:
    """Matrix factorization without biases or mean, by SGD.

    PMF (Mnih and Salakhutdinov, NIPS 2007) as a point estimate: what FedMF and FedRec
    share out. Raises MissingExtra without scikit-surprise.
    """
    model = surprise().SVD(
        n_factors=width,
        n_epochs=epochs,
        biased=False,
        init_mean=(_middle(world) / width) ** 0.5,
        lr_all=learning_rate,
        reg_all=regularization,
        random_state=seed,
    )
    return _surprised(model, world, held)


def mf(
    world: World,
    held: Ragged,
    seed: int = 0,
    width: int = 20,
    epochs: int = 50,
    learning_rate: float = 0.01,
    regularization: float = 0.1,
) -> Tensor:
    """Matrix factorization with a mean and biases, by SGD (Koren et al., 2009).

    Raises MissingExtra without cornac.
    """
    model = cornac("cornac.models").MF(
        k=width,
        max_iter=epochs,
        learning_rate=learning_rate,
        lambda_reg=regularization,
        use_bias=True,
        seed=seed,
    )
    model.fit(cornac_data(world, seed))
    user, item = held.owner.numpy(), held.item.numpy()
    product = (model.u_factors[user] * model.i_factors[item]).sum(1)
    found = model.global_mean + model.u_biases[user] + model.i_biases[item] + product
    return _cut(world, torch.from_numpy(found))


def svdpp(
    world: World,
    held: Ragged,
    seed: int = 0,
    width: int = 20,
    epochs: int = 20,
    learning_rate: float = 0.007,
    regularization: float = 0.02,
) -> Tensor:
    """SVD++: biased factorization with implicit feedback (Koren, KDD 2008).

    Raises MissingExtra without scikit-surprise.
    """
    model = surprise().SVDpp(
        n_factors=width,
        n_epochs=epochs,
        lr_all=learning_rate,
        reg_all=regularization,
        random_state=seed,
    )
    return _surprised(model, world, held)


def _surprised(model: object, world: World, held: Ragged) -> Tensor:
    import pandas as pd

    library = surprise()
    train = world.train
    low, high = float(train.label.min()), float(train.label.max())
    columns = {"user": train.owner, "item": train.item, "rating": train.label}
    frame = pd.DataFrame({name: value.numpy() for name, value in columns.items()})
    reader = library.Reader(rating_scale=(low, high))
    data = library.Dataset.load_from_df(frame, reader).build_full_trainset()
    model.fit(data)  # type: ignore[attr-defined]
    pairs = zip(held.owner.tolist(), held.item.tolist(), strict=True)
    found = [model.predict(u, i).est for u, i in pairs]  # type: ignore[attr-defined]
    return torch.from_numpy(np.asarray(found, dtype=np.float64))


def _middle(world: World) -> float:
    return float(world.train.label.double().mean())


def _cut(world: World, found: Tensor) -> Tensor:
    return found.clamp(float(world.train.label.min()), float(world.train.label.max()))
