"""Federated BPR: pairwise ranking with private user vectors.

Rendle et al., BPR, UAI 2009, in the federated form that FedRecAttack (Rong et al., ICDE
2022) and later attacks train: a client's loss is
-sum log sigmoid(<u, v_p - v_n>) + l/2 (|u|^2 + sum |v|^2) over the rows it touches,
every row of its gradient is cut to a norm, and the server steps on the sum.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn.functional import softplus

from privfed.checks import not_negative, positive
from privfed.data.cohort import Cohort
from privfed.data.world import Shape
from privfed.devices.batches import Samples, collect
from privfed.devices.flat import Flat, laid_once, lay
from privfed.devices.negatives import Negatives
from privfed.interfaces import (
    FromTotal,
    Penalized,
    PerInteraction,
    Ranker,
    Round,
    State,
    Trained,
)
from privfed.messages import Rows, Total, Uploads
from privfed.methods.bpr_dp import mean_loss, private_steps, whole_change
from privfed.methods.factors import (
    ITEMS,
    USERS,
    moved,
    scores,
    small_start,
)
from privfed.methods.one_step import by_pairs, pulled
from privfed.mixed import Mixed, Parts
from privfed.seeds import Stream
from privfed.surfaces import Known, OneStep, Regularized


@dataclass(frozen=True)
class BPR(Ranker, FromTotal, PerInteraction, Penalized, OneStep, Regularized):
    """Federated BPR: one local step; the server adds the clients' clipped steps.

    ``clip`` bounds each row's gradient; the published code clips on the server, here
    the device does. ``negatives_resample="once"`` draws a client's negatives for all
    rounds. A negative that is drawn twice counts twice. Under DP-SGD interactions are
    clipped instead of rows, and nothing is regularized.
    """

    width: int = 32
    learning_rate: float = 0.01
    regularization: float = 0.1
    clip: float = 1.0
    negatives: int = 1
    negatives_exclude: Literal["train_only", "nothing"] = "train_only"
    negatives_resample: Literal["once", "round"] = "once"
    start_size: float = 0.01  # deviation of the first vectors

    flat = True
    keeps = "user vector"
    sends = "gradient of the item rows touched, each of bounded length"
    paper = "Rendle et al., UAI 2009; federated as in Rong et al., ICDE 2022"

    def __post_init__(self) -> None:
        positive(self, "width", "learning_rate", "clip", "negatives", "start_size")
        not_negative(self, "regularization")

    def init(self, shape: Shape, stream: Stream) -> tuple[State, State]:
        return small_start(shape, self.width, self.start_size, stream)

    def user_direction(self) -> str:
        return USERS

    def group_loss(self, score: Tensor) -> Tensor:
        return softplus(score[..., 1:] - score[..., :1]).sum((1, 2))

    def sampling(self) -> Negatives:
        """The negative sampling rule."""
        return Negatives(self.negatives, self.negatives_exclude)

    def train(
        self, model: State, private: State, cohort: Cohort, round: Round
    ) -> Trained:
        x, table = private[USERS].index_select(0, cohort.clients), model[ITEMS]
        once = self.negatives_resample == "once"
        stream = (round.always if once else round.stream).of("negatives")
        if round.privacy is not None:
            samples = collect(cohort, self.sampling(), stream)
            return self._private(x, table[samples.item], samples, round)
        laid = (laid_once if once else lay)(cohort, self.sampling(), stream)
        score = laid.products(x, table)
        lost, slope = by_pairs(score, laid, len(cohort.clients))
        loss = lost / (cohort.counts * self.negatives).clamp_min(1)
        own = laid.combined(slope, table) + x * self.regularization
        if round.penalties:
            pull = pulled("bpr", x, laid.of_item(table), laid, round.penalties)
            own = own + pull.users[USERS]
            rows: Rows = self._pulled(x, table, slope, laid, pull.rows[ITEMS])
        else:
            rate = self._rate(self._squared(x, table, slope, score, laid))
            parts = Parts(x, slope * rate, table, rate * self.regularization)
            rows = Mixed(laid.sender, laid.item, parts=parts)
        some = cohort.counts[:, None] > 0
        after = torch.where(some, x - own * self.learning_rate, x)
        scale = {ITEMS: self.learning_rate}
        uploads = Uploads(cohort.clients, {ITEMS: rows}, scale=scale)
        return Trained({USERS: after}, {}, uploads, loss)

    def _private(
        self, x: Tensor, table: Tensor, samples: Samples, round: Round
    ) -> Trained:
        cohort, rate = samples.cohort, self.learning_rate
        loss = mean_loss(x, table, samples)
        local = private_steps(x, table, samples, round, rate)
        sender, _ = at = samples.rows.nonzero(as_tuple=True)
        change = (local.rows[ITEMS] - table)[at]
        touched = (sender, samples.item[at])
        rows = whole_change(change, touched, cohort, round, rate)
        uploads = Uploads(cohort.clients, {ITEMS: rows}, scale={ITEMS: rate})
        return Trained({USERS: local.dense[USERS]}, {}, uploads, loss)

    def private_training(self) -> Self:
        """Negatives from the whole catalog, and no penalty on what was touched."""
        return replace(
            self,
            negatives_exclude="nothing",
            negatives_resample="round",
            regularization=0.0,
        )

    def _squared(
        self, x: Tensor, table: Tensor, slope: Tensor, score: Tensor, laid: Flat
    ) -> Tensor:
        """Squared length of each row's gradient, slope * u + l * v, (rows,)."""
        near = x.square().sum(1).index_select(0, laid.sender)
        far = table.square().sum(1).index_select(0, laid.item)
        pull = self.regularization
        return slope * (slope * near + score * (2 * pull)) + far * pull**2

    def _rate(self, squared: Tensor) -> Tensor:
        """What a gradient of such a squared length is multiplied by, of any shape."""
        length = squared.clamp_min(0.0).sqrt()
        return (self.clip / length).clamp_max(1.0) * -self.learning_rate

    def _pulled(
        self, x: Tensor, table: Tensor, slope: Tensor, laid: Flat, pull: Tensor
    ) -> Rows:
        """The rows that are sent where their gradients have the part ``pull``, too."""
        usual = slope.new_full(slope.shape, self.regularization)
        parts = Parts(x, slope, table, usual)
        gradient = parts.value(laid.sender, laid.item) + pull
        rate = self._rate(gradient.square().sum(1, keepdim=True))
        return Rows(laid.sender, laid.item, gradient * rate)

    def known_parts(self) -> Mapping[str, Sequence[Known]]:
        if self.regularization == 0:
            return {}
        return {ITEMS: [Known(ITEMS, factor=-self.learning_rate * self.regularization)]}

    def longest_row(self) -> float:
        return self.learning_rate * self.clip

    def apply(self, model: State, total: Total) -> State:
        """Add the sum of all changes."""
        return moved(model, total)

    def score(self, model: State, private: State, cohort: Cohort) -> Tensor:
        return scores(model, private[USERS][cohort.clients])

    def footprint(self, shape: Shape, positives: int) -> int:
        rows = min(positives * (1 + self.negatives), shape.items)
        return 4 * rows * (3 * self.width + 16)
