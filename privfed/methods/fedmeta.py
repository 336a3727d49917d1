"""FedMeta: the server learns from where devices adapt fastest.

Chen, Luo, Dong, Li and He, Federated Meta-Learning with Fast Convergence and Efficient
Communication, 2018: MAML, first-order MAML and Meta-SGD beside FedAvg. Where the paper
contradicts itself: devices upload the gradient of the algorithm box, not the "test
loss" of the text; meta-gradients count alike and FedAvg's weights by data; the inner
step is plain SGD, and the server takes steps of Adam.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from privfed.checks import at_least, fours, positive
from privfed.data.cohort import Cohort, part_of
from privfed.data.world import Pairs, Shape
from privfed.devices.dpsgd import Entangled
from privfed.errors import SettingsError
from privfed.interfaces import Chooser, FromTotal, Round, State, Trained, broadcast
from privfed.messages import Total, Uploads
from privfed.methods.meta.adaptation import Rates, adapt, copies, meta_gradient
from privfed.methods.meta.averaging import local_adam
from privfed.methods.meta.models import Classifier, Letters, Logistic, Network
from privfed.methods.meta.records import Records, Taking, all_of, shuffled_batches
from privfed.methods.outer import adam
from privfed.seeds import Seeds, Stream

RATE = "rate."  # a learned step size has its weight's shape, and this before its name


@dataclass(frozen=True)
class FedMeta(Chooser, FromTotal, Entangled):
    """FedMeta, and FedAvg to compare it with.

    ``maml`` and ``fomaml`` adapt with the step ``inner_rate``; ``meta_sgd`` learns a
    step for each weight, which starts there. ``fedavg`` averages weights after
    ``epochs`` of Adam (``local_rate``) over all records in batches of ``batch``, and
    predicts with the average; ``fedavg_meta`` trains alike and fine-tunes before it
    predicts. An episode, and a step of a device that predicts, takes ``records``, or
    the ``share`` of a client that has few; an episode's first ``support`` share is
    adapted to, the rest asked. Training takes ``inner_steps``, predicting
    ``adapt_steps``.

    An upload is minus the gradient, of scale 1, so that minus the total is the sum of
    the gradients; of ``fedavg`` and ``fedavg_meta`` it is the change of the weights.
    """

    algorithm: Literal["maml", "fomaml", "meta_sgd", "fedavg", "fedavg_meta"] = "maml"
    model: Literal["logistic", "network", "lstm"] = "network"
    hidden: int = 64
    inner_rate: float = 0.01
    inner_steps: int = 1
    adapt_steps: int = 100
    outer_rate: float = 0.001
    records: int = 500
    share: float = 0.5
    support: float = 0.8
    local_rate: float = 0.001
    epochs: int = 1
    batch: int = 500

    keeps = "its records, and the model adapted to them"
    sends = "gradient, through the adaptation, of a loss on records held back: dense"
    paper = "Chen et al., Federated Meta-Learning, 2018"
    entangled = "its gradient goes through a step on other choices of the client"

    def __post_init__(self) -> None:
        at_least(self, 2, "records")
        at_least(self, 1, "inner_steps", "hidden", "epochs", "batch")
        at_least(self, 0, "adapt_steps")
        positive(self, "inner_rate", "outer_rate", "local_rate")
        for name, below in (("share", 1.0), ("support", 0.999)):
            if not 0 < getattr(self, name) <= below:
                raise ValueError(
                    f"{name} must be above 0 and at most {below:g}, got "
                    f"{getattr(self, name)}"
                )
        fours(self, "hidden")

    @property
    def classifier(self) -> Classifier:
        """The model that clients adapt."""
        if self.model == "logistic":
            return Logistic()
        return Network(self.hidden) if self.model == "network" else Letters(self.hidden)

    @property
    def averages(self) -> bool:
        """Whether the server averages weights, not gradients."""
        return self.algorithm in ("fedavg", "fedavg_meta")

    @property
    def _taking(self) -> Taking:
        return Taking(self.records, self.share, self.support)

    def init(self, shape: Shape, stream: Stream) -> tuple[State, State]:
        if not shape.context:
            raise SettingsError(
                "fedmeta predicts choices from what is known before each, and this "
                "data has no contexts; take --data usage, or a dated log"
            )
        weights = self.classifier.init(shape, stream.generator())
        if self.algorithm != "meta_sgd":
            return weights, {}
        steps = {
            RATE + name: torch.full_like(value, self.inner_rate)
            for name, value in weights.items()
        }
        return weights | steps, {}

    def train(
        self, model: State, private: State, cohort: Cohort, round: Round
    ) -> Trained:
        every = all_of(cohort, len(cohort.clients))
        act = self._average if self.averages else self._episode
        return act(broadcast(model), cohort, every, round.stream)

    def _episode(
        self, model: State, cohort: Cohort, every: Records, stream: Stream
    ) -> Trained:
        support, query = self._taking.episode(every, cohort.clients, stream)
        own = copies(model, len(cohort.clients))
        weights = {n: v for n, v in own.items() if not n.startswith(RATE)}
        found = meta_gradient(
            weights,
            partial(self._loss, cohort, support),
            partial(self._loss, cohort, query),
            self._rates(own),
            self.inner_steps,
            exact=self.algorithm != "fomaml",
        )
        slope = dict(found.weights)
        slope |= {RATE + name: value for name, value in found.rates.items()}
        dense = {name: -value.contiguous() for name, value in slope.items()}
        uploads = Uploads(cohort.clients, dense=dense, scale=dict.fromkeys(dense, 1.0))
        return Trained({}, {}, uploads, found.loss)

    def _average(
        self, model: State, cohort: Cohort, every: Records, stream: Stream
    ) -> Trained:
        after, loss = local_adam(
            copies(model, len(cohort.clients)),
            lambda weights, batch: self._loss(cohort, batch, weights),
            self._epochs(cohort, every, stream),
            self.local_rate,
        )
        moved = {n: (v - model[n]).contiguous() for n, v in after.items()}
        scale = dict.fromkeys(moved, self.local_rate)
        weight = cohort.counts.float()
        uploads = Uploads(cohort.clients, dense=moved, weight=weight, scale=scale)
        return Trained({}, {}, uploads, loss)

    def _epochs(
        self, cohort: Cohort, every: Records, stream: Stream
    ) -> Iterator[Records]:
        for epoch in range(self.epochs):
            draws = stream.of("epoch", epoch)
            yield from shuffled_batches(every, cohort.clients, self.batch, draws)

    def _loss(self, cohort: Cohort, records: Records, weights: State) -> Tensor:
        """Mean cross-entropy of each client, (clients,)."""
        like = next(iter(weights.values()))
        context = records.of(cohort.context).to(like.dtype)
        told = self.classifier.logits(weights, context).log_softmax(2)
        right = told.gather(2, records.of(cohort.item)[:, :, None])[:, :, 0]
        return -(right * records.share).sum(1)

    def _rates(self, own: State) -> Rates:
        if self.algorithm == "meta_sgd":
            starts = {n: v for n, v in own.items() if n.startswith(RATE)}
            return {n.removeprefix(RATE): v for n, v in starts.items()}
        return dict.fromkeys(own, self.inner_rate)

    def apply(self, model: State, total: Total) -> State:
        """One step of Adam on the mean gradient, or the mean of weights."""
        if total.weight == 0:
            return model
        mean = {name: value / total.weight for name, value in total.dense.items()}
        if self.averages:
            return {n: v + mean[n] if n in mean else v for n, v in model.items()}
        gradient = {name: -value for name, value in mean.items()}
        return adam(model, gradient, self.outer_rate)

    def choose(
        self, model: State, private: State, cohort: Cohort, pairs: Pairs
    ) -> Tensor:
        asked, sender = torch.unique(pairs.sender, return_inverse=True)
        ours = Pairs(sender, pairs.item, pairs.label, pairs.context)
        weights = self.adapted(model, part_of(cohort, asked))
        every = all_of(ours, len(asked))
        with torch.no_grad():
            scores = self.classifier.logits(weights, every.of(ours.context))
        return scores[every.real]

    def adapted(self, model: State, cohort: Cohort) -> Mapping[str, Tensor]:
        """The weights that each client predicts with, (clients, ...)."""
        own = copies(broadcast(model), len(cohort.clients))
        rates = self._rates(own)
        weights = {n: v.detach() for n, v in own.items() if not n.startswith(RATE)}
        if self.algorithm == "fedavg" or not len(cohort.item):
            return weights
        batches = self._steps(cohort)
        if self.averages:
            return local_adam(
                weights,
                lambda now, batch: self._loss(cohort, batch, now),
                batches,
                self.local_rate,
            )[0]
        for batch in batches:
            leaves = {n: v.detach().requires_grad_() for n, v in weights.items()}
            losses = partial(self._loss, cohort, batch)
            weights = adapt(leaves, losses, rates, 1, exact=False)
        return {n: v.detach() for n, v in weights.items()}

    def _steps(self, cohort: Cohort) -> Iterator[Records]:
        """What each step of adapting sees: drawn by client and step alone."""
        every = all_of(cohort, len(cohort.clients))
        for step in range(self.adapt_steps):
            draws = Seeds(step)("adapt")
            yield self._taking.batch(every, cohort.clients, draws)

    def footprint(self, shape: Shape, positives: int) -> int:
        classifier = self.classifier
        weights = classifier.init(Shape(1, shape.items, {}, shape.context), _anyhow())
        numbers = sum(value.numel() for value in weights.values())
        step = min(self.batch if self.averages else self.records, positives)
        record = 3 * classifier.activations(shape) + 2 * shape.context
        return 4 * (8 * numbers + step * record + positives * (shape.context + 8))


def _anyhow() -> torch.Generator:
    """Draws whose values do not matter."""
    return torch.Generator().manual_seed(0)
