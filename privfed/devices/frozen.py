"""Linear layers whose input is public and fixed, trained in dual form.

SGD moves such a layer within the span of its inputs: W = W0 + D^T X, where row i of
D is minus the learning rate times the output gradients accumulated at item i. So a
device steps the small table D instead of W, and its output is X W0^T + (X X^T + 1) D,
the one being the bias. This is the same arithmetic to rounding, for the price of
the rows that a client touches instead of the width of the features.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from privfed.data.cohort import Cohort
from privfed.devices.batches import Samples


@dataclass(frozen=True, eq=False)
class Frozen:
    """One layer's fixed input at the rows of a shard; its D is a row table."""

    input: Tensor  # (clients, rows, in)
    start: Tensor  # (clients, rows, out): the output before any step
    gram: Tensor  # (clients, rows, rows)

    @classmethod
    def of(
        cls, samples: Samples, features: Tensor, weight: Tensor, bias: Tensor
    ) -> Self:
        """Look at ``features`` (items, in) through a layer of one round's model."""
        own = features[samples.item]
        start = (features @ weight.T + bias)[samples.item]
        if _worth_keeping(features, samples.cohort):
            return cls(own, start, _among(_catalog(features), samples.item))
        gram = torch.baddbmm(torch.ones(1, 1, 1), own, own.transpose(1, 2))
        return cls(own, start, gram)

    def output(self, dual: Tensor) -> Tensor:
        """The layer's output at every row, (clients, rows, out)."""
        return torch.baddbmm(self.start, self.gram, dual)

    def change(self, dual: Tensor) -> tuple[Tensor, Tensor]:
        """What the steps did to weight (clients, out, in) and bias (clients, out)."""
        return torch.bmm(dual.transpose(1, 2), self.input), dual.sum(1)


_MOST = 4096  # items whose Gram matrix is kept: 64 MiB at most
_grams = WeakTensorKeyDictionary()


def _worth_keeping(features: Tensor, cohort: Cohort) -> bool:
    """Whether a table is a world's own, and small enough to keep its Gram matrix."""
    own = any(features is table for table in cohort.features.values())
    return own and len(features) <= _MOST


def _catalog(features: Tensor) -> Tensor:
    """X X^T + 1 of all items; computed once for as long as the features live."""
    if features not in _grams:
        _grams[features] = torch.addmm(features.new_ones(1, 1), features, features.T)
    found: Tensor = _grams[features]
    return found


def _among(gram: Tensor, item: Tensor) -> Tensor:
    """Each client's own rows and columns, (clients, rows, rows)."""
    return torch.take(gram, item[:, :, None] * len(gram) + item[:, None])
