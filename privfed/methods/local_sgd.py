"""Federated recommenders trained by local SGD, batched over a shard of clients.

A subclass declares its parts, its gradients and its scores; copying, stepping,
DP-SGD, uploads and averaging are here, once.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

from privfed.checks import at_least, positive
from privfed.data.cohort import Cohort
from privfed.data.world import Shape
from privfed.devices import dpsgd
from privfed.devices.batches import Batch, Samples, collect, padded
from privfed.devices.gradients import Grads, Local, step
from privfed.devices.negatives import Negatives
from privfed.devices.penalty import Terms
from privfed.interfaces import (
    START,
    FromTotal,
    Penalized,
    PerInteraction,
    Ranker,
    Round,
    State,
    Trained,
)
from privfed.messages import Rows, Total, Uploads, every
from privfed.methods.copies import changes, own_copies
from privfed.methods.parts import Part
from privfed.methods.penalized import terms_of
from privfed.seeds import Stream

Rates = Mapping[str, float]


@dataclass(frozen=True)
class LocalSGD(Ranker, FromTotal, PerInteraction, Penalized):
    """Local training with SGD, then averaging of what is shared.

    ``negatives_exclude`` other than ``train_only`` is for reproduction only: it
    leaks held-out items into training.
    """

    width: int = 64
    learning_rate: float = 0.1
    epochs: int = 10
    batch: int = 2048
    negatives: int = 4
    negatives_exclude: Literal["train_only", "all_interactions", "nothing"] = (
        "train_only"
    )
    negatives_resample: Literal["round", "once"] = "round"
    negatives_pool: Literal["all_items", "items_in_train"] = "all_items"
    negatives_distinct: bool = False  # those of one positive differ

    def __post_init__(self) -> None:
        at_least(self, 1, "width", "epochs", "batch", "negatives")
        positive(self, "learning_rate")

    # What a method declares.

    @abstractmethod
    def parts(self, shape: Shape) -> Sequence[Part]:
        """All trainable tensors."""

    @abstractmethod
    def phases(self, shape: Shape, round: int) -> Sequence[Rates]:
        """Learning rates by part; several phases take turns on the same batch."""

    @abstractmethod
    def backward(
        self, local: Local, batch: Batch, cohort: Cohort, round: Round
    ) -> tuple[Tensor, Grads]:
        """Each client's mean loss, (clients,), and its gradients."""

    def fixed(self, cohort: Cohort) -> Mapping[str, Tensor]:
        """Shared layers that read public features only: name to (items, in)."""
        return {}

    @property
    @abstractmethod
    def weighted(self) -> bool:
        """Whether clients send their number of interactions as a weight."""

    # What all share.

    def init(self, shape: Shape, stream: Stream) -> tuple[State, State]:
        rng = stream.generator()
        model: dict[str, Tensor] = {}
        private: dict[str, Tensor] = {}
        for part in self.parts(shape):
            start = part.start(shape.items, rng)
            if not part.private:
                model |= start
            elif part.kind == "rows":
                model[part.name + START] = start[part.name]
                size = (shape.clients, shape.items, part.size[0])
                private[part.name] = torch.zeros(1, 1, 1).expand(size)
            else:
                for name, value in start.items():
                    private[name] = value.expand(shape.clients, *value.shape)
        return model, private

    def sampling(self) -> Negatives:
        """The negative sampling rule."""
        return Negatives(
            self.negatives,
            self.negatives_exclude,
            self.negatives_distinct,
            self.negatives_pool,
        )

    def train(
        self, model: State, private: State, cohort: Cohort, round: Round
    ) -> Trained:
        once = self.negatives_resample == "once"
        stream = (round.always if once else round.stream).of("negatives")
        samples = collect(cohort, self.sampling(), stream)
        parts = self.parts(cohort.shape)
        if round.privacy is None:
            steps, fixed = self._full_steps(samples), self.fixed(cohort)
        else:
            steps, fixed = 0, {}  # noise needs the weights themselves
        local = own_copies(parts, model, private, samples, fixed, steps)
        if round.privacy is None:
            terms = terms_of(round.penalties, parts, model, samples)
            loss = self._epochs(local, samples, round, terms)
        else:
            loss = self._private_steps(local, samples, round, round.privacy)
        return self._leave(parts, model, private, local, samples, round, loss)

    def _full_steps(self, samples: Samples) -> int:
        """How often a layer steps on all samples at once; 0 where batches are cut."""
        return self.epochs if samples.slot[0].numel() <= self.batch else 0

    def _epochs(
        self, local: Local, samples: Samples, round: Round, terms: Terms | None
    ) -> Tensor:
        cohort = samples.cohort
        phases = self.phases(cohort.shape, round.number)
        rates = self._rates(cohort.shape, round)
        loss = torch.zeros(len(cohort.clients))
        full = samples.full() if self._full_steps(samples) else None
        for epoch in range(self.epochs):
            shuffle = round.stream.of("shuffle")
            batches = (
                [replace(full, epoch=epoch)]
                if full
                else samples.mini(self.batch, shuffle, epoch)
            )
            for batch in batches:
                steps = batch.weight.any(1)
                pull = terms.gradients(local, steps) if terms else None
                loss = self.turns(local, batch, cohort, round, phases)
                if terms and pull:
                    pull.step(local, rates)
                    terms.settle(local, rates, steps)
        return loss

    def turns(
        self,
        local: Local,
        batch: Batch,
        cohort: Cohort,
        round: Round,
        phases: Sequence[Rates],
    ) -> Tensor:
        """Step every phase on one batch, in turn; return the last one's loss."""
        loss = torch.zeros(len(cohort.clients))
        for rates in phases:
            loss, grads = self.backward(local, batch, cohort, round)
            step(local, batch, grads, rates)
        return loss

    def _private_steps(
        self, local: Local, samples: Samples, round: Round, rule: dpsgd.InteractionDP
    ) -> Tensor:
        cohort, group = samples.cohort, samples.slot.shape[2]
        rates = self._rates(cohort.shape, round)
        loss = torch.zeros(len(cohort.clients))
        for number in range(rule.steps):
            draws = round.stream.of("poisson")
            batch = dpsgd.poisson(samples, rule.sampling_rate, draws, number)
            loss, grads = self.backward(local, batch, cohort, round)
            assert batch.slot is not None
            kept = dpsgd.clipped(grads, batch.slot, group, rule.clip)
            step(local, batch, dpsgd.scaled(kept, 1 / rule.expected), rates)
            noise = dpsgd.NoiseSource(round.stream.of("dp"), cohort.clients, number)
            dpsgd.add_noise(local, rates, rule.noise, noise)
        return loss / max(rule.expected, 1.0)

    def _rates(self, shape: Shape, round: Round) -> Rates:
        """Learning rates by part; under DP-SGD one for all that is shared, the least.

        A rate that makes up for averaging over clients who did not touch a row
        would multiply the noise, which they all send, by as much.
        """
        phases = self.phases(shape, round.number)
        rates = {name: rate for phase in phases for name, rate in phase.items()}
        if round.privacy is None:
            return rates
        least, own = min(rates.values()), round.privacy.own_rate
        kept = {part.name for part in self.parts(shape) if part.private}
        return {name: least * (own if name in kept else 1.0) for name in rates}

    def _leave(
        self,
        parts: Sequence[Part],
        model: State,
        private: State,
        local: Local,
        samples: Samples,
        round: Round,
        loss: Tensor,
    ) -> Trained:
        cohort = samples.cohort
        rates = self._rates(cohort.shape, round)
        shared: dict[str, Rows] = {}
        kept: dict[str, Rows] = {}
        sender, _ = at = samples.rows.nonzero(as_tuple=True)
        item = samples.item[at]
        for part in parts:
            if part.kind != "rows":
                continue
            moved = local.rows[part.name][at]
            if part.private:
                rows = Rows(sender, item, moved - model[part.name + START][item])
            else:
                rows = Rows(sender, item, moved - model[part.name][item])
            if round.privacy is not None:
                spread = round.privacy.noise * rates[part.name]
                before = private[part.name][cohort.clients] if part.private else None
                rows = _noise_other_rows(rows, cohort, part, round, spread, before)
            (kept if part.private else shared)[part.name] = rows
        dense, own = changes(local, model, private, cohort.clients)
        weight = cohort.counts.float() if self.weighted and not round.privacy else None
        scale = {n: rates[dpsgd.base(n)] for n in [*shared, *dense]}
        uploads = Uploads(cohort.clients, shared, dense, weight, scale)
        return Trained(own, kept, uploads, loss)

    def apply(self, model: State, total: Total) -> State:
        """Add the mean change: a row that a client did not send counts as zero."""
        if total.weight == 0:  # nobody in the round had any data
            return model
        sums = {**total.tables, **total.dense}
        moved = {name: value / total.weight for name, value in sums.items()}
        return {n: v + moved[n] if n in moved else v for n, v in model.items()}

    def private_training(self) -> Self:
        """Negatives from the whole catalog: no draw depends on anybody's data."""
        return replace(self, negatives_exclude="nothing", negatives_pool="all_items")

    def warnings(self) -> Sequence[str]:
        if self.negatives_exclude != "all_interactions":
            return ()
        return (
            "negatives exclude held-out items, which tells the model what they are: "
            "utility is inflated; compare with negatives_exclude=train_only",
        )

    def footprint(self, shape: Shape, positives: int) -> int:
        rows = padded(min(positives * (1 + self.negatives), shape.items))
        total = 0
        for part in self.parts(shape):
            one = part.numbers(1)
            if part.kind == "rows":
                total += one * rows * 4
            else:
                total += one * 2 + rows * 3 * sum(part.size)
        return 4 * total


def _noise_other_rows(
    rows: Rows,
    cohort: Cohort,
    part: Part,
    round: Round,
    spread: float,
    before: Tensor | None,
) -> Rows:
    """Give every untouched row the noise that all local steps would have added.

    The steps' noise on such a row never meets data, so one draw with the summed
    variance has the same distribution.
    """
    assert round.privacy is not None
    clients, items = len(cohort.clients), cohort.shape.items
    source = dpsgd.NoiseSource(round.stream.of("dp rest"), cohort.clients, 0)
    value = source(part.name, torch.empty(clients, items, rows.value.shape[1]))
    value *= spread * round.privacy.steps**0.5
    if before is not None:
        value += before
    value[rows.sender, rows.item] = rows.value
    return every(value)
