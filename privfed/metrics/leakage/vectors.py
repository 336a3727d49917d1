"""How near claimed vectors come to the private ones."""

import torch
from torch import Tensor
from torch.linalg import vector_norm

from privfed.adversary import NotApplicable, Prior
from privfed.guesses import Vectors
from privfed.metrics.leakage.judged import Judged, Truth
from privfed.metrics.score import Score, mean_of

_ROUNDING = 1e-12  # of a vector's length


def judge(guess: Vectors, truth: Truth, _: Prior) -> Judged | NotApplicable:
    """Figures over clients, beside the mean of the other clients' true vectors.

    ``cosine`` is that of claim and truth. Where vectors start alike it is near 1 for
    whoever says the same of all, so ``own_cosine`` is the cosine after all are made of
    length one and the mean over the other clients is taken off, of claims and of true
    vectors alike: 0 is what a claim made alike for all reaches. ``sign_agreement`` is
    the share of numbers whose sign is right, ``relative_error`` the length of the error
    over the truth's, which tells nothing where directions alone are claimed. The floor
    is no guess that an adversary could make, but more than any prior tells. Raises
    ArithmeticError where a claim is not finite.
    """
    if not bool(guess.vector.isfinite().all()):
        raise ArithmeticError("an attack's vector is not finite")
    held = truth.private if guess.name in truth.private else truth.model
    real = held[guess.name][guess.clients].flatten(1).double()
    if len(real) < 2:
        return NotApplicable("one client's vector has no others to stand out from")
    claimed = guess.vector.flatten(1).double()
    own = cosine(_apart(_unit(claimed)), _apart(_unit(real)))
    scores = {**_near(claimed, real), "own_cosine": own}
    floor = {**_near(_others(real), real), "own_cosine": torch.zeros_like(own)}
    return Judged(_means(scores), _means(floor), "own_cosine")


def _near(claimed: Tensor, real: Tensor) -> dict[str, Tensor]:
    length = vector_norm(real, dim=1).clamp_min(1e-30)
    return {
        "cosine": cosine(claimed, real),
        "sign_agreement": (claimed.sign() == real.sign()).double().mean(1),
        "relative_error": vector_norm(claimed - real, dim=1) / length,
    }


def cosine(one: Tensor, other: Tensor) -> Tensor:
    """Of each pair of rows, (rows,); 0 where one of them is zero."""
    lengths = vector_norm(one, dim=1) * vector_norm(other, dim=1)
    found: Tensor = (one * other).sum(1) / lengths.clamp_min(1e-30)
    return found


def _others(vector: Tensor) -> Tensor:
    """The mean of all rows but each, (rows, width)."""
    return (vector.sum(0) - vector) / (len(vector) - 1)


def _unit(vector: Tensor) -> Tensor:
    length: Tensor = vector_norm(vector, dim=1, keepdim=True)
    return vector / length.clamp_min(1e-30)


def _apart(vector: Tensor) -> Tensor:
    """What sets each row apart from the others' mean; rounding sets none apart."""
    apart = vector - _others(vector)
    noise = _ROUNDING * vector_norm(vector, dim=1, keepdim=True)
    return torch.where(vector_norm(apart, dim=1, keepdim=True) > noise, apart, 0.0)


def _means(figures: dict[str, Tensor]) -> dict[str, Score]:
    return {name: mean_of(values) for name, values in figures.items()}
