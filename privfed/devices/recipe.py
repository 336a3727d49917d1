"""Local training as anybody who knows the algorithm can repeat it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

Values = Mapping[str, Tensor]
EACH = -1  # size of a private item table: one row for each sample


@dataclass(frozen=True, eq=False)
class Recipe:
    """What a device does with its samples, in operations that can be differentiated.

    ``predict(rows, shared, own)`` gives (clients, samples) from the samples' rows
    (clients, samples, width) and each client's tensors; ``loss(prediction, label,
    real)`` gives (clients,), ``real`` marking samples that are no padding. Each of
    ``steps`` steps reads all samples; ``phases``, learning rates by tensor, take turns
    in it. A device that cuts its samples into batches of ``batch`` takes as many more
    steps, here on all samples each: the same to first order. ``decay`` adds so much
    of a tensor to its gradient. ``penalty(rows, held, own, real)``, (clients,), is
    added to the loss; ``held`` are the rows as they were received. A private item
    table is given as the samples' rows: its size begins with ``EACH``.
    """

    tables: Sequence[str]  # item tables of the model: trained and sent
    shared: Sequence[str]  # dense tensors of the model: trained and sent
    own: Mapping[str, tuple[int, ...]]  # private tensors: name -> size of one client's
    predict: Callable[[Values, Values, Values], Tensor]
    loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    phases: Sequence[Mapping[str, float]]
    steps: int
    decay: Mapping[str, float] = field(default_factory=dict)
    optimizer: Literal["sgd", "adam"] = "sgd"
    penalty: Callable[[Values, Values, Values, Tensor], Tensor] | None = None
    batch: int | None = None
