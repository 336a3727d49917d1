"""What the five backbones have in common: item rows, then a head."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from privfed.checks import positive
from privfed.data.cohort import Cohort
from privfed.data.world import Shape
from privfed.devices.batches import Batch, aligned
from privfed.devices.gradients import Grads, LayerGrad, Local, RowGrad
from privfed.devices.recipe import EACH, Recipe, Values
from privfed.devices.tape import Direct, Forward, affine
from privfed.interfaces import START, Round, State
from privfed.methods.local_sgd import LocalSGD, Rates
from privfed.methods.parts import Part
from privfed.surfaces import AlongUser, Replayable

HEAD = "head"


def cross_entropy(logit: Tensor, batch: Batch) -> Tensor:
    """Each client's mean binary cross-entropy, (clients,), from logits."""
    each = aligned(softplus, logit) - batch.target * logit
    return (batch.share * each).sum(1)


@dataclass(frozen=True)
class Backbone(LocalSGD, Replayable):
    """A recommender that reads each item through rows of one or two tables.

    Inside FedMR the rows' sum goes through the fusion module before the head.
    ``item_rate`` multiplies the learning rate of the item tables; ``item_std`` is
    the deviation of their first values, Xavier's where it is None.
    """

    item_rate: float = 1.0
    item_std: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "item_rate")

    @abstractmethod
    def tables(self, width: int) -> Sequence[Part]:
        """Item tables whose rows sum to an item's id vector of ``width``."""

    @abstractmethod
    def head_parts(self, width: int) -> Sequence[Part]:
        """What turns an item vector of ``width`` into a logit."""

    @abstractmethod
    def head(self, tape: Forward, x: Tensor | None) -> Tensor:
        """Logits (clients, samples) of fused item vectors; None inside no FedMR."""

    @abstractmethod
    def logits(self, tape: Forward) -> Tensor:
        """Logits (clients, samples) inside no FedMR."""

    @abstractmethod
    def head_scores(
        self, model: State, private: State, cohort: Cohort, x: Tensor
    ) -> Tensor:
        """Scores (clients, items) of item vectors (clients or 1, items, width)."""

    @abstractmethod
    def rates(self, shape: Shape, round: int) -> Rates:
        """Learning rate of each part, and of "fusion" inside FedMR."""

    def penalty(
        self, local: Local, batch: Batch, round: int
    ) -> tuple[Tensor | float, Mapping[str, Tensor]]:
        """A regularizer's value, (clients,), and its gradient by table and sample."""
        return 0.0, {}

    def recipe(self, shape: Shape, round: int) -> Recipe:
        """Of a device whose samples are its positives and what it drew.

        ``real`` may say how often each counts.
        """
        parts = self.parts(shape)

        def penalty(rows: Values, _: Values, own: Values, real: Tensor) -> Tensor:
            tables = {
                p.name: {**rows, **own}[p.name] for p in parts if p.kind == "rows"
            }
            value, _ = self.penalty(Local(tables, {}), _batch(real, real), round)
            return value + real.new_zeros(len(real))

        return Recipe(
            [p.name for p in parts if p.kind == "rows" and not p.private],
            [n for p in parts if p.kind != "rows" and not p.private for n in names(p)],
            {n: size for p in parts if p.private for n, size in _sizes(p).items()},
            lambda rows, shared, own: self.logits(
                Direct({**rows, **own}, {**shared, **own})
            ),
            lambda logit, label, real: cross_entropy(logit, _batch(label, real)),
            [
                {n: rate[p.name] for p in parts if p.name in rate for n in names(p)}
                for rate in self.phases(shape, round)
            ],
            self.epochs,
            penalty=penalty,
            batch=self.batch,
        )


def _batch(label: Tensor, real: Tensor) -> Batch:
    weight = real.to(label.dtype)
    size = weight.sum(1, keepdim=True).clamp_min(1)
    return Batch(None, label, weight, size, torch.zeros_like(real, dtype=torch.int64))


def names(part: Part) -> Sequence[str]:
    """Tensors that a part has."""
    if part.kind != "layer":
        return [part.name]
    return [f"{part.name}.weight", f"{part.name}.bias"]


def _sizes(part: Part) -> Mapping[str, tuple[int, ...]]:
    """Sizes of one client's tensors."""
    if part.kind == "layer":
        return dict(zip(names(part), (part.size[::-1], part.size[1:]), strict=True))
    return {part.name: (EACH, *part.size) if part.kind == "rows" else part.size}


@dataclass(frozen=True)
class LinearBackbone(Backbone, AlongUser):
    """A private affine score head over shared item vectors: w . x + b."""

    def head_parts(self, width: int) -> Sequence[Part]:
        return [Part(HEAD, "layer", (width, 1), private=True)]

    def parts(self, shape: Shape) -> Sequence[Part]:
        return [*self.tables(self.width), *self.head_parts(self.width)]

    def user_direction(self) -> str:
        return f"{HEAD}.weight"

    def head(self, tape: Forward, x: Tensor | None) -> Tensor:
        assert x is not None
        return tape.linear(HEAD, x)[..., 0]

    def logits(self, tape: Forward) -> Tensor:
        tables = [tape.rows(part.name) for part in self.tables(self.width)]
        return self.head(tape, tables[0] if len(tables) == 1 else tables[0] + tables[1])

    def head_scores(
        self, model: State, private: State, cohort: Cohort, x: Tensor
    ) -> Tensor:
        weight = private[f"{HEAD}.weight"][cohort.clients]  # (clients, 1, width)
        bias = private[f"{HEAD}.bias"][cohort.clients]
        if len(x) == 1:
            return weight[:, 0] @ x[0].T + bias
        return torch.bmm(x, weight.transpose(1, 2))[..., 0] + bias

    def backward(
        self, local: Local, batch: Batch, cohort: Cohort, round: Round
    ) -> tuple[Tensor, Grads]:
        """Closed form: the row gradient is (sigmoid - target) times the head."""
        names = list(local.rows)
        rows = [batch.rows(local.rows[name]) for name in names]
        x = rows[0] if len(rows) == 1 else rows[0] + rows[1]
        weight, bias = local.dense[f"{HEAD}.weight"], local.dense[f"{HEAD}.bias"]
        logit = affine(x, weight, bias)[..., 0]
        error = (batch.share * (aligned(torch.sigmoid, logit) - batch.target))[
            ..., None
        ]
        value, extra = self.penalty(local, batch, round.number)
        basis = weight.clone()  # the step must use the head that made the gradient
        grads = {
            name: RowGrad(torch.baddbmm(extra[name], error, basis))
            if name in extra
            else RowGrad(error, basis)
            for name in names
        }
        loss = cross_entropy(logit, batch) + value
        return loss, Grads(grads, {HEAD: LayerGrad(x, error)})

    def score(self, model: State, private: State, cohort: Cohort) -> Tensor:
        names = [part.name for part in self.tables(self.width)]
        x = item_vectors(model, private, cohort, names)
        return self.head_scores(model, private, cohort, x)


def item_vectors(
    model: State, private: State, cohort: Cohort, tables: Sequence[str]
) -> Tensor:
    """Sum of each item's rows: (1, items, width), or by client where one is private."""
    total: Tensor | None = None
    for name in tables:
        if name in model:
            value = model[name][None]
        else:
            value = private[name][cohort.clients] + model[name + START]
        total = value if total is None else total + value
    assert total is not None
    return total
