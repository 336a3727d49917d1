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
from torch.linalg import vector_norm
from torch.nn.functional import softplus

from privfed.checks import not_negative, positive
from privfed.data.cohort import Cohort
from privfed.data.world import Shape
from privfed.devices.batches import Samples, aligned, collect, padded
from privfed.devices.gradients import Local
from privfed.devices.negatives import Negatives
from privfed.devices.penalty import Pull, Terms
from privfed.errors import SettingsError
from privfed.interfaces import (
    FromTotal,
    Penalized,
    PerInteraction,
    Ranker,
    Round,
    State,
    Trained,
)
from privfed.messages import Total, Uploads, summed
from privfed.methods.bpr_dp import private_steps, whole_change
from privfed.methods.factors import (
    ITEMS,
    USERS,
    combined,
    inner,
    normal_items,
    normal_users,
    scores,
)
from privfed.seeds import Stream
from privfed.surfaces import AlongUser, Known, Regularized


@dataclass(frozen=True)
class BPR(Ranker, FromTotal, PerInteraction, Penalized, AlongUser, Regularized):
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

    keeps = "user vector"
    sends = "gradient of the item rows touched, each of bounded length"
    paper = "Rendle et al., UAI 2009; federated as in Rong et al., ICDE 2022"

    def __post_init__(self) -> None:
        positive(self, "width", "learning_rate", "clip", "negatives", "start_size")
        not_negative(self, "regularization")

    def init(self, shape: Shape, stream: Stream) -> tuple[State, State]:
        size = self.start_size
        users = normal_users(shape.clients, self.width, stream) * size
        items = normal_items(shape.items, self.width, stream) * size
        return {ITEMS: items}, {USERS: users}

    def user_direction(self) -> str:
        return USERS

    def sampling(self) -> Negatives:
        """The negative sampling rule."""
        return Negatives(self.negatives, self.negatives_exclude)

    def train(
        self, model: State, private: State, cohort: Cohort, round: Round
    ) -> Trained:
        once = self.negatives_resample == "once"
        stream = (round.always if once else round.stream).of("negatives")
        samples = collect(cohort, self.sampling(), stream)
        x, table = private[USERS][cohort.clients], model[ITEMS][samples.item]
        if round.privacy is not None:
            return self._private(x, table, samples, round)
        loss, slope = self._slopes(inner(x, table), samples)
        pull = self._pull(x, table, samples, round)
        some = samples.real.any(1, keepdim=True)
        own = combined(slope, table) + x * self.regularization
        own = own + pull.users.get(USERS, 0.0)
        after = torch.where(some, x - own * self.learning_rate, x)
        sender, _ = at = samples.rows.nonzero(as_tuple=True)
        gradient = slope[..., None] * x[:, None] + table * self.regularization
        gradient = gradient + pull.rows.get(ITEMS, 0.0)
        change = self._clipped(gradient[at]) * -self.learning_rate
        rows = summed(sender, samples.item[at], change, cohort.shape.items)
        scale = {ITEMS: self.learning_rate}
        uploads = Uploads(cohort.clients, {ITEMS: rows}, scale=scale)
        return Trained({USERS: after}, {}, uploads, loss)

    def _pull(self, x: Tensor, table: Tensor, samples: Samples, round: Round) -> Pull:
        """What the round's penalties add to the gradient."""
        if not round.penalties:
            return Pull({}, {})
        if any(penalty.anchored for penalty in round.penalties):
            raise SettingsError(
                "bpr takes one local step, from what was received, where a term that "
                "holds rows there has no gradient; take fedncf or another method of "
                "several local steps"
            )
        count = samples.full().weight
        received, readers = {ITEMS: table}, {ITEMS: USERS}
        terms = Terms(round.penalties, received, samples.item, count, readers)
        local = Local({ITEMS: table}, {USERS: x})
        return terms.gradients(local, samples.real.any(1))

    def _private(
        self, x: Tensor, table: Tensor, samples: Samples, round: Round
    ) -> Trained:
        cohort, rate = samples.cohort, self.learning_rate
        loss, _ = self._slopes(inner(x, table), samples)
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

    def _slopes(self, score: Tensor, samples: Samples) -> tuple[Tensor, Tensor]:
        """Each client's mean loss, and the loss's derivative by each row's score."""
        slot = samples.slot.flatten(1)
        each = score.gather(1, slot).view(samples.slot.shape)
        margin = (each[..., :1] - each[..., 1:]).flatten(1)
        real = samples.real[..., None].expand(-1, -1, self.negatives).flatten(1)
        push = (aligned(torch.sigmoid, -margin) * real).view(each[..., 1:].shape)
        by_sample = torch.cat([-push.sum(2, keepdim=True), push], 2).flatten(1)
        clients, rows = score.shape
        flat = slot + torch.arange(clients)[:, None] * rows
        slope = torch.zeros(clients * rows).index_add_(
            0, flat.view(-1), by_sample.view(-1)
        )
        loss = (aligned(softplus, -margin) * real).sum(1) / real.sum(1).clamp_min(1)
        return loss, slope.view(clients, rows)

    def _clipped(self, rows: Tensor) -> Tensor:
        length: Tensor = vector_norm(rows, dim=1, keepdim=True)
        return rows * (self.clip / length.clamp_min(1e-30)).clamp_max(1.0)

    def known_parts(self) -> Mapping[str, Sequence[Known]]:
        if self.regularization == 0:
            return {}
        return {ITEMS: [Known(ITEMS, factor=-self.learning_rate * self.regularization)]}

    def longest_row(self) -> float:
        return self.learning_rate * self.clip

    def apply(self, model: State, total: Total) -> State:
        """Add the sum of all changes."""
        if ITEMS not in total.tables:
            return model
        return {**model, ITEMS: model[ITEMS] + total.tables[ITEMS]}

    def score(self, model: State, private: State, cohort: Cohort) -> Tensor:
        return scores(model, private[USERS][cohort.clients])

    def footprint(self, shape: Shape, positives: int) -> int:
        rows = padded(min(positives * (1 + self.negatives), shape.items))
        return 4 * self.width * 6 * rows
