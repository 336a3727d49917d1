"""MF-FRS: matrix factorization of implicit feedback, item gradients added up.

The recommender that PIECK (Zhang et al., ICDE 2024) attacks, as its released code has
it. A client's loss is the mean over its positives and as many sampled negatives of the
binary cross-entropy of sigmoid(<u, v_i>); it steps u once and sends the gradient of
the rows that it touched, uncut; the server steps on the sum with the same rate.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from privfed.checks import positive
from privfed.data.cohort import Cohort
from privfed.data.world import Shape
from privfed.devices.batches import padded
from privfed.devices.dpsgd import Entangled
from privfed.devices.flat import Flat, flat_aligned, laid_once, lay
from privfed.devices.negatives import Negatives
from privfed.interfaces import FromTotal, Penalized, Ranker, Round, State, Trained
from privfed.messages import Rows, Total, Uploads
from privfed.methods.factors import (
    ITEMS,
    USERS,
    moved,
    scores,
    small_start,
)
from privfed.methods.one_step import by_pairs, pulled
from privfed.seeds import Stream
from privfed.surfaces import OneStep


@dataclass(frozen=True)
class MFFRS(Ranker, FromTotal, Penalized, OneStep, Entangled):
    """MF-FRS: one local step on the mean loss; the server adds the clients' steps.

    ``own_rate`` is the user vectors' learning rate over that of the item rows.
    ``loss="bpr"`` takes the mean of -log sigmoid(<u, v_p - v_n>) over pairs instead.
    ``negatives_resample="once"`` draws a client's negatives for all rounds. A negative
    that is drawn twice counts twice; the released server keeps one of its two rows.
    """

    width: int = 32
    learning_rate: float = 1.0
    own_rate: float = 1.0
    loss: Literal["bce", "bpr"] = "bce"
    negatives: int = 1
    negatives_resample: Literal["once", "round"] = "once"
    start_size: float = 0.01  # deviation of the first vectors

    flat = True
    entangled = "each gradient is divided by how many interactions a client has"
    keeps = "user vector"
    sends = "gradient of the item rows touched, of any length"
    paper = "Zhang et al. (PIECK), ICDE 2024"

    def __post_init__(self) -> None:
        names = ("width", "learning_rate", "own_rate", "negatives", "start_size")
        positive(self, *names)

    def init(self, shape: Shape, stream: Stream) -> tuple[State, State]:
        return small_start(shape, self.width, self.start_size, stream)

    def user_direction(self) -> str:
        return USERS

    def group_loss(self, score: Tensor) -> Tensor:
        if self.loss == "bpr":
            return softplus(score[..., 1:] - score[..., :1]).mean((1, 2))
        lost = softplus(score).sum((1, 2)) - score[..., 0].sum(1)
        return lost / score[0].numel()

    def train(
        self, model: State, private: State, cohort: Cohort, round: Round
    ) -> Trained:
        laid = self.laid(cohort, round)
        x, items = private[USERS].index_select(0, cohort.clients), model[ITEMS]
        user, rows = laid.of_client(x), laid.of_item(items)
        score = (user * rows).sum(1)
        loss, slope = _LOSSES[self.loss](score, laid, cohort.counts)
        own = laid.combined(slope, items)
        gradient = user * slope[:, None]
        if round.penalties:
            pull = pulled("mf_frs", x, rows, laid, round.penalties)
            own, gradient = own + pull.users[USERS], gradient + pull.rows[ITEMS]
        sent = Rows(laid.sender, laid.item, gradient * -self.learning_rate)
        scale = {ITEMS: self.learning_rate}
        uploads = Uploads(cohort.clients, {ITEMS: sent}, scale=scale)
        after = x - own * (self.learning_rate * self.own_rate)
        return Trained({USERS: after}, {}, uploads, loss)

    def laid(self, cohort: Cohort, round: Round) -> Flat:
        """A shard's samples of a round."""
        negatives = Negatives(self.negatives)
        if self.negatives_resample == "once":
            return laid_once(cohort, negatives, round.always.of("negatives"))
        return lay(cohort, negatives, round.stream.of("negatives"))

    def apply(self, model: State, total: Total) -> State:
        """Add the sum of all changes."""
        return moved(model, total)

    def score(self, model: State, private: State, cohort: Cohort) -> Tensor:
        return scores(model, private[USERS][cohort.clients])

    def footprint(self, shape: Shape, positives: int) -> int:
        rows = padded(min(positives * (1 + self.negatives), shape.items))
        return 4 * self.width * 6 * rows


def _bce(score: Tensor, laid: Flat, count: Tensor) -> tuple[Tensor, Tensor]:
    """Each client's mean loss over samples, and its derivative by each row's score."""
    samples, positives = laid.uses(laid.place), laid.uses(laid.place[:, 0])
    size = (count * laid.place.shape[1]).clamp_min(1)
    slope = flat_aligned(torch.sigmoid, score) * samples - positives
    lost = flat_aligned(softplus, score) * samples - score * positives
    loss = lost.new_zeros(len(size)).index_add_(0, laid.sender, lost)
    return loss / size, slope / size.index_select(0, laid.sender)


def _bpr(score: Tensor, laid: Flat, count: Tensor) -> tuple[Tensor, Tensor]:
    """The same of the mean over pairs of -log sigmoid(positive - negative)."""
    size = (count * (laid.place.shape[1] - 1)).clamp_min(1)
    loss, slope = by_pairs(score, laid, len(size))
    return loss / size, slope / size.index_select(0, laid.sender)


_LOSSES = {"bce": _bce, "bpr": _bpr}
