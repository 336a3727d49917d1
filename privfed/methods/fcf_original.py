"""FCF as first proposed: implicit matrix factorization with closed-form users.

Ammad-ud-din et al., Federated Collaborative Filtering for Privacy-Preserving
Personalized Recommendation System, 2019. With p = 1 for an item that was taken and
else 0, and c = 1 + alpha r, a client solves (Y' C Y + l I) x = Y' C p and sends
f_i = c_i (p_i - <x, y_i>) x for *every* item; the server steps on -2 sum f + 2 l Y.
Every upload has rank one, and the rows of items that were not taken are all
proportional to <x, y_i>: whoever reads it finds the others.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.checks import not_negative, positive
from privfed.data.cohort import Cohort
from privfed.data.world import Shape
from privfed.devices.batches import padded
from privfed.devices.dpsgd import Entangled
from privfed.interfaces import FromTotal, Ranker, Round, State, Trained
from privfed.messages import Total, Uploads, every
from privfed.methods.factors import (
    ITEMS,
    Padded,
    combined,
    distinct,
    inner,
    normal_items,
    scores,
)
from privfed.methods.outer import adam
from privfed.seeds import Stream
from privfed.surfaces import WholeGradient


@dataclass(frozen=True)
class FCFOriginal(Ranker, FromTotal, Entangled, WholeGradient):
    """FCF of 2019: user vectors in closed form, a gradient of the whole item table up.

    ``confidence`` is the paper's alpha. No vector is kept: a device solves for its own
    whenever it trains or predicts. Memory and upload are those of whole tables.
    """

    width: int = 32
    confidence: float = 10.0
    regularization: float = 1.0
    learning_rate: float = 0.05
    start_size: float = 0.1  # deviation of the first item vectors
    negatives = 0

    keeps = "user vector, solved for anew each time"
    sends = "gradient of every item's row"
    paper = "Ammad-ud-din et al., 2019"
    entangled = "its user vector is solved for from all interactions at once"

    def __post_init__(self) -> None:
        positive(self, "width", "regularization", "learning_rate", "start_size")
        not_negative(self, "confidence")

    def init(self, shape: Shape, stream: Stream) -> tuple[State, State]:
        start = normal_items(shape.items, self.width, stream) * self.start_size
        return {ITEMS: start}, {}

    def users(self, model: State, data: Padded) -> Tensor:
        """Solve for each client's vector, (clients, width)."""
        y = model[ITEMS]
        table, extra = y[data.item], data.label * self.confidence
        eye = torch.eye(self.width) * self.regularization
        weighted = table * extra[..., None]  # padding has label 0
        left = (y.T @ y + eye) + torch.bmm(weighted.transpose(1, 2), table)
        right = combined((extra + 1) * data.real, table)
        solved = torch.cholesky_solve(right[..., None], torch.linalg.cholesky(left))
        return solved[..., 0]

    def train(
        self, model: State, private: State, cohort: Cohort, round: Round
    ) -> Trained:
        data, y = distinct(cohort), model[ITEMS]
        clients, items = len(cohort.clients), cohort.shape.items
        x = self.users(model, data)
        rating = torch.zeros(clients, items)
        sender, _ = at = data.real.nonzero(as_tuple=True)
        rating[sender, data.item[at]] = data.label[at]
        error = (rating > 0).float() - inner(x, y.expand(clients, -1, -1))
        pull = (rating * self.confidence + 1) * error
        rows = every(pull[..., None] * x[:, None])
        uploads = Uploads(cohort.clients, {ITEMS: rows}, scale={ITEMS: 0.5})
        return Trained({}, {}, uploads, (pull * error).sum(1) / items)

    def whole_table(self) -> str:
        return ITEMS

    def apply(self, model: State, total: Total) -> State:
        """One step of Adam."""
        if ITEMS not in total.tables:
            return model
        slope = model[ITEMS] * self.regularization - total.tables[ITEMS]
        return adam(model, {ITEMS: slope * 2}, self.learning_rate)

    def score(self, model: State, private: State, cohort: Cohort) -> Tensor:
        return scores(model, self.users(model, distinct(cohort)))

    def footprint(self, shape: Shape, positives: int) -> int:
        own = 3 * padded(positives, 4) + 4 * self.width
        return 4 * self.width * (own + 2 * shape.items) + 32 * shape.items
