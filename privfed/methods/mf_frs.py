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
from privfed.devices.batches import coarse, padded
from privfed.devices.end_to_end import Flat, flat_aligned, lay
from privfed.devices.gradients import Local
from privfed.devices.negatives import Negatives
from privfed.devices.penalty import Pull, Terms
from privfed.errors import SettingsError
from privfed.interfaces import FromTotal, Penalized, Ranker, Round, State, Trained
from privfed.messages import Rows, Total, Uploads
from privfed.methods.factors import (
    ITEMS,
    USERS,
    normal_items,
    normal_users,
    scores,
)
from privfed.seeds import Stream
from privfed.surfaces import OneStep


@dataclass(frozen=True)
class MFFRS(Ranker, FromTotal, Penalized, OneStep):
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

    keeps = "user vector"
    sends = "gradient of the item rows touched, of any length"
    paper = "Zhang et al. (PIECK), ICDE 2024"

    def __post_init__(self) -> None:
        names = ("width", "learning_rate", "own_rate", "negatives", "start_size")
        positive(self, *names)

    def init(self, shape: Shape, stream: Stream) -> tuple[State, State]:
        users = normal_users(shape.clients, self.width, stream)
        items = normal_items(shape.items, self.width, stream)
        return {ITEMS: items * self.start_size}, {USERS: users * self.start_size}

    def user_direction(self) -> str:
        return USERS

    def group_loss(self, score: Tensor) -> Tensor:
        if self.loss == "bpr":
            return softplus(score[..., 1:] - score[..., :1]).mean((1, 2))
        lost = softplus(score).sum((1, 2)) - score[..., 0].sum(1)
        return lost / score[0].numel()

    def room(self, counts: Tensor) -> Tensor:
        return coarse(counts)  # only a penalty's terms are padded, and by that

    def train(
        self, model: State, private: State, cohort: Cohort, round: Round
    ) -> Trained:
        flat = self.laid(cohort, round)
        x, items = private[USERS][cohort.clients], model[ITEMS]
        table = items.index_select(0, flat.item)
        user = x.index_select(0, flat.sender)
        score = (user * table).sum(1)
        loss, slope = _LOSSES[self.loss](score, flat, cohort.counts)
        change = user * (slope * -self.learning_rate)[:, None]
        own = flat.combined(slope, items)
        if round.penalties:
            pull, at = self._pull(x, table, flat, cohort, round)
            own = own + pull.users.get(USERS, 0.0)
            if ITEMS in pull.rows:
                change = change - pull.rows[ITEMS][at] * self.learning_rate
        rows = Rows(flat.sender, flat.item, change)
        scale = {ITEMS: self.learning_rate}
        uploads = Uploads(cohort.clients, {ITEMS: rows}, scale=scale)
        after = x - own * (self.learning_rate * self.own_rate)
        return Trained({USERS: after}, {}, uploads, loss)

    def laid(self, cohort: Cohort, round: Round) -> Flat:
        """A shard's samples of a round."""
        once = self.negatives_resample == "once"
        stream = (round.always if once else round.stream).of("negatives")
        return lay(cohort, Negatives(self.negatives), stream)

    def _pull(
        self, x: Tensor, table: Tensor, flat: Flat, cohort: Cohort, round: Round
    ) -> tuple[Pull, tuple[Tensor, Tensor]]:
        """What the round's penalties add to the gradient, and where each row lies."""
        if any(penalty.anchored for penalty in round.penalties):
            raise SettingsError(
                "mf_frs takes one local step, from what was received, where a term "
                "that holds rows there has no gradient; take fedncf or another method "
                "of several local steps"
            )
        counts = cohort.counts
        size = (len(counts), self._rows(int(self.room(counts).max()), cohort.shape))
        at = flat.padded()
        rows = table.new_zeros(*size, self.width).index_put_(at, table)
        item = flat.item.new_zeros(size).index_put_(at, flat.item)
        samples = table.new_zeros(size).index_put_(at, flat.uses(flat.place))
        terms = Terms(round.penalties, {ITEMS: rows}, item, samples, {ITEMS: USERS})
        pull = terms.gradients(Local({ITEMS: rows}, {USERS: x}), counts > 0)
        return pull, at

    def _rows(self, positives: int, shape: Shape) -> int:
        return padded(min(positives * (1 + self.negatives), shape.items))

    def apply(self, model: State, total: Total) -> State:
        """Add the sum of all changes."""
        if ITEMS not in total.tables:
            return model
        return {**model, ITEMS: model[ITEMS] + total.tables[ITEMS]}

    def score(self, model: State, private: State, cohort: Cohort) -> Tensor:
        return scores(model, private[USERS][cohort.clients])

    def footprint(self, shape: Shape, positives: int) -> int:
        return 4 * self.width * 6 * self._rows(positives, shape) + 9 * shape.items


def _bce(score: Tensor, flat: Flat, count: Tensor) -> tuple[Tensor, Tensor]:
    """Each client's mean loss over samples, and its derivative by each row's score."""
    samples, positives = flat.uses(flat.place), flat.uses(flat.place[:, 0])
    size = (count * flat.place.shape[1]).clamp_min(1)
    slope = flat_aligned(torch.sigmoid, score) * samples - positives
    lost = flat_aligned(softplus, score) * samples - score * positives
    return flat.summed(lost) / size, slope / size[flat.sender]


def _bpr(score: Tensor, flat: Flat, count: Tensor) -> tuple[Tensor, Tensor]:
    """The same of the mean over pairs of -log sigmoid(positive - negative)."""
    pairs = flat.place.shape[1] - 1
    size = (count * pairs).clamp_min(1)
    each = score[flat.place]
    margin = each[:, :1] - each[:, 1:]
    push = flat_aligned(torch.sigmoid, -margin)
    by_sample = torch.cat([-push.sum(1, keepdim=True), push], 1)
    slope = torch.zeros_like(score).index_add_(
        0, flat.place.view(-1), by_sample.view(-1)
    )
    lost = flat_aligned(softplus, -margin).sum(1)
    owner = flat.sender[flat.place[:, 0]]
    loss = lost.new_zeros(len(size)).index_add_(0, owner, lost)
    return loss / size, slope / size[flat.sender]


_LOSSES = {"bce": _bce, "bpr": _bpr}
