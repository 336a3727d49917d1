"""How often uploads of two rounds were put down to the same client."""

import torch
from torch import Tensor

from privfed.adversary import NotApplicable, Prior
from privfed.guesses import Links
from privfed.metrics.leakage.judged import Judged, Truth
from privfed.metrics.score import mean_of


def judge(
    guess: Links,
    truth: Truth,  # noqa: ARG001
    prior: Prior,  # noqa: ARG001
) -> Judged | NotApplicable:
    """Figures of the clients that sent an upload in both rounds.

    ``linked`` is the share whose own later upload is scored highest, a tie counting
    its part; ``reciprocal_rank`` the mean of one over its rank; ``auc`` the chance
    that it is scored above another client's. The floor is a blind guess. Raises
    ArithmeticError where a score is not finite.
    """
    if not bool(guess.score.isfinite().all()):
        raise ArithmeticError("an attack's score is not finite")
    same = guess.clients[:, None] == guess.others  # (seen, later)
    both = same.any(1)
    if not both.any():
        return NotApplicable(
            "no client sent an upload in both of the rounds compared; take more "
            "rounds, or more clients a round"
        )
    ours = _figures(guess.score[both].double(), same[both])
    blind = _figures(torch.zeros(same[both].shape, dtype=torch.float64), same[both])
    return Judged(
        {name: mean_of(value) for name, value in ours.items()},
        {name: mean_of(value) for name, value in blind.items()},
        "linked",
    )


def _figures(score: Tensor, same: Tensor) -> dict[str, Tensor]:
    """Each figure by client; every row of ``same`` has one true place."""
    own = score[same][:, None]
    above, level = (score > own).sum(1), (score == own).sum(1)  # level counts itself
    others = score.shape[1] - 1
    harmonic = torch.arange(others + 2).double().clamp(min=1).reciprocal()
    harmonic = harmonic.index_fill(0, torch.tensor(0), 0.0).cumsum(0)
    beaten = others - above - (level - 1) / 2
    return {
        "linked": (above == 0) / level.double(),
        "reciprocal_rank": (harmonic[above + level] - harmonic[above]) / level,
        "auc": beaten.double() / others
        if others
        else torch.full_like(own[:, 0], torch.nan),
    }
