"""FedRec as MetaMF's paper has it: FedMeta's MAML for ratings.

Lin et al., MetaMF, SIGIR 2020, Table 2, row FedRec, after Chen et al., 2018: an MLP of
one hidden layer over a user's and an item's embedding, adapted to each client by a
step down its squared error. Not the FedRec of Lin et al., 2021. The paper leaves the
user's side open: all clients start from one shared vector, and adapt it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from privfed.checks import at_least, fours, positive
from privfed.data.cohort import Cohort, part_of
from privfed.data.world import Pairs, Shape
from privfed.devices.batches import bucket, padded
from privfed.devices.dpsgd import Entangled
from privfed.devices.tape import affine
from privfed.interfaces import FromTotal, Rater, Round, State, Trained, broadcast
from privfed.messages import Rows, Total, Uploads
from privfed.methods.meta.adaptation import adapt, copies, meta_gradient
from privfed.methods.meta.models import rows_of
from privfed.methods.meta.records import Records, Taking, all_of, shuffled
from privfed.methods.outer import adam
from privfed.methods.parts import Part
from privfed.seeds import Stream


@dataclass(frozen=True)
class FedRecMAML(Rater, FromTotal, Entangled):
    """FedRec, MAML on an MLP over embeddings.

    Each round a client's ratings fall at random into a ``support`` share, which it
    adapts to by ``inner_steps`` of ``inner_rate``, and the rest, on which the gradient
    is taken. It predicts after ``adapt_steps`` on all its ratings. An upload is minus
    the gradient, of scale 1.
    """

    width: int = 64
    hidden: int = 16
    inner_rate: float = 0.01
    inner_steps: int = 1
    adapt_steps: int = 1
    outer_rate: float = 0.001
    support: float = 0.8
    item_std: float = 0.1

    keeps = "its ratings, and the model adapted to them"
    sends = "gradient, through the adaptation, of the rows of rated items and the MLP"
    paper = "Lin et al., MetaMF, 2020 (row FedRec); Chen et al., 2018"
    entangled = "its gradient goes through a step on other interactions of the client"

    def __post_init__(self) -> None:
        at_least(self, 1, "width", "hidden", "inner_steps")
        at_least(self, 0, "adapt_steps")
        positive(self, "inner_rate", "outer_rate", "item_std")
        if not 0 < self.support < 1:
            raise ValueError(f"support must be between 0 and 1, got {self.support}")
        fours(self, "width", "hidden")

    def init(self, shape: Shape, stream: Stream) -> tuple[State, State]:
        rng = stream.generator()
        parts = (
            Part("items", "rows", (self.width,), std=self.item_std),
            Part("user", "vector", (self.width,), std=self.item_std),
            Part("hidden", "layer", (2 * self.width, self.hidden)),
            Part("out", "layer", (self.hidden, 1)),
        )
        model: dict[str, Tensor] = {}
        for part in parts:
            model |= part.start(shape.items, rng)
        return model, {}

    def train(
        self, model: State, private: State, cohort: Cohort, round: Round
    ) -> Trained:
        clients = len(cohort.clients)
        own = _Touched.of(cohort.sender, cohort.item, clients, cohort.shape.items)
        every = shuffled(all_of(cohort, clients), cohort.clients, round.stream)
        most = every.at.shape[1]
        taking = Taking(most, 1.0, self.support)
        support, query = taking.episode(every, cohort.clients, round.stream)
        losses = partial(_losses, own.slot, cohort.label)
        start = self._start(model, own)
        rates = dict.fromkeys(start, self.inner_rate)
        found = meta_gradient(
            start,
            partial(losses, support),
            partial(losses, query),
            rates,
            self.inner_steps,
            exact=True,
        )
        dense = {n: -v.contiguous() for n, v in found.weights.items() if n != "items"}
        rows = own.rows(-found.weights["items"])
        scale = dict.fromkeys(found.weights, 1.0)
        uploads = Uploads(cohort.clients, {"items": rows}, dense, scale=scale)
        return Trained({}, {}, uploads, found.loss)

    def _start(self, model: State, own: "_Touched") -> dict[str, Tensor]:
        """Each client's copy of the network and of the item rows that it touches."""
        shared = {n: v for n, v in broadcast(model).items() if n != "items"}
        rows = model["items"][own.item].requires_grad_()
        return {**copies(shared, len(own.item)), "items": rows}

    def apply(self, model: State, total: Total) -> State:
        """One step of Adam on the mean gradient; a row not sent counts as zero."""
        if total.weight == 0:
            return model
        sums = {**total.tables, **total.dense}
        gradient = {name: -value / total.weight for name, value in sums.items()}
        return adam(model, gradient, self.outer_rate)

    def predict(
        self, model: State, private: State, cohort: Cohort, pairs: Pairs
    ) -> Tensor:
        found = pairs.label.new_zeros(len(pairs.item))
        sizes = bucket(cohort.counts)
        for size in torch.unique(sizes):  # alike in size, so that little is padded
            members = (sizes == size).nonzero()[:, 0]
            place = torch.full_like(sizes, -1)
            place[members] = torch.arange(len(members), device=members.device)
            mine = (place[pairs.sender] >= 0).nonzero()[:, 0]
            asked = Pairs(
                place[pairs.sender[mine]],
                pairs.item[mine],
                pairs.label[mine],
                pairs.context[mine],
            )
            if len(mine):
                found[mine] = self._predict(model, part_of(cohort, members), asked)
        return found

    def _predict(self, model: State, cohort: Cohort, pairs: Pairs) -> Tensor:
        clients, known = len(cohort.clients), len(cohort.item)
        own = _Touched.of(
            torch.cat([cohort.sender, pairs.sender]),
            torch.cat([cohort.item, pairs.item]),
            clients,
            cohort.shape.items,
        )
        support, every = all_of(cohort, clients), all_of(pairs, clients)
        losses = partial(_losses, own.slot[:known], cohort.label, support)
        weights: Mapping[str, Tensor] = self._start(model, own)
        rates = dict.fromkeys(weights, self.inner_rate)
        for _ in range(self.adapt_steps):
            leaves = {n: v.detach().requires_grad_() for n, v in weights.items()}
            weights = adapt(leaves, losses, rates, 1, exact=False)
        with torch.no_grad():
            ratings = _ratings(weights, every.of(own.slot[known:]))
        return ratings[every.real]

    def footprint(self, shape: Shape, positives: int) -> int:
        rows = padded(min(positives, shape.items))
        network = (2 * self.width + 1) * self.hidden + self.hidden + 1 + self.width
        record = 6 * (2 * self.width + 2 * self.hidden)
        return 4 * (8 * (rows * self.width + network) + positives * record)


def _ratings(weights: State, slot: Tensor) -> Tensor:
    """Predicted ratings of the rows in some slots, (clients, records)."""
    item = rows_of(weights["items"], slot)
    user = weights["user"][:, None].expand(-1, slot.shape[1], -1)
    both = torch.cat([user, item], dim=2)
    hidden = torch.relu(affine(both, weights["hidden.weight"], weights["hidden.bias"]))
    return affine(hidden, weights["out.weight"], weights["out.bias"])[:, :, 0]


def _losses(slot: Tensor, label: Tensor, records: Records, weights: State) -> Tensor:
    """Mean squared error of each client, (clients,)."""
    told = _ratings(weights, records.of(slot))
    error = told - records.of(label).to(told.dtype)
    return (error * error * records.share).sum(1)


@dataclass(frozen=True, eq=False)
class _Touched:
    """The items that each client of a shard touches, each once."""

    item: Tensor  # (clients, rows), 0 where padded
    real: Tensor  # (clients, rows)
    slot: Tensor  # (interactions,) row of each

    @classmethod
    def of(cls, sender: Tensor, item: Tensor, clients: int, items: int) -> "_Touched":
        pairs, back = torch.unique(sender * items + item, return_inverse=True)
        owner = pairs // items
        counts = torch.bincount(owner, minlength=clients)
        start = counts.cumsum(0) - counts
        most = torch.bincount(sender, minlength=clients)
        width = padded(int(bucket(most).max()))
        place = torch.arange(width, device=item.device)
        real = place < counts[:, None]
        table = torch.zeros_like(real, dtype=torch.int64)
        rank = torch.arange(len(pairs), device=item.device) - start[owner]
        table[owner, rank] = pairs % items
        return cls(table, real, rank[back])

    def rows(self, value: Tensor) -> Rows:
        """What the clients send of their rows."""
        sender, place = self.real.nonzero(as_tuple=True)
        return Rows(sender, self.item[sender, place], value[sender, place])
