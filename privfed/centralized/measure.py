"""How centralized references are judged: as runs are, on the same held-out pairs."""

from collections.abc import Mapping

from torch import Tensor

from privfed.data.world import Ragged, World
from privfed.evaluation.protocol import Protocol
from privfed.evaluation.ranking import rank_scores, reached
from privfed.metrics.score import means
from privfed.metrics.utility import mae, mse, rmse
from privfed.seeds import Seeds


def ranked(
    world: World, scores: Tensor, held: Ragged, protocol: Protocol, seed: int
) -> Mapping[str, float]:
    """HR@K and NDCG@K of scores (clients, items) on held-out pairs.

    Candidates are those of a run with this seed. Raises ArithmeticError on NaN.
    """
    marks = reached(world, scores, protocol.candidates(world, Seeds(seed)), held)
    return means([*rank_scores(marks, protocol.at).items()])


def rated(predictions: Tensor, held: Ragged) -> Mapping[str, float]:
    """MAE, MSE and RMSE of predictions (pairs,) of held-out ratings."""
    return {
        "mae": mae(predictions, held.label),
        "mse": mse(predictions, held.label),
        "rmse": rmse(predictions, held.label),
    }
