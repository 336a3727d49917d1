"""Regula, the client-side defense against poisoning that comes with PIECK.

Zhang et al., Preventing the Popular Item Embedding Based Attack, ICDE 2024, as the
released client of the matrix factorization model does it. With p_r the r-th of s
popular items' received rows, w_r = (s - r + 1)^2 / sum, the loss has added

    - a sum_r w_r mean_i cos(p_r, v_i)            over samples i of other items
    - b sum_r w_r KL(softmax(u) || softmax(p_r)) / d

Popular are the items whose rows changed most between the first two models of a run. The
released client compares the models of its own first two participations instead, and
until then takes any rows for popular ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vector_norm

from privfed.accounting.guarantee import Guarantee, not_private
from privfed.checks import at_least, not_negative
from privfed.devices.batches import aligned
from privfed.devices.penalty import Own, Penalty
from privfed.interfaces import Defense, State, Turn
from privfed.messages import Total

_FIRST, _POPULAR = "first.", "popular"
_SMALLEST = 1e-8  # length of a row in a cosine


@dataclass(frozen=True)
class Regula(Defense):
    """Pull unpopular items' rows toward popular ones, and the user vector off them.

    ``popular`` items are mined from the first two models; training is plain until then.
    ``item_weight`` and ``user_weight`` are the strengths of the two terms (the paper's
    mu1 and mu2); the user's applies where a vector scores the very rows that are sent.
    A method whose loss is a sum over samples, as that of bpr, feels them less than one
    whose loss is a mean.
    """

    popular: int = 10
    item_weight: float = 1.0
    user_weight: float = 1.0

    hides = "nothing: it guards the model against malicious clients"
    does_not_hide = "interactions; it weakens attacks that copy popular items' rows"
    trust = "the server: it could send what makes any item look popular"
    cost = "some accuracy; next to no time"
    paper = "Zhang et al. (PIECK), ICDE 2024"

    def __post_init__(self) -> None:
        at_least(self, 1, "popular")
        not_negative(self, "item_weight", "user_weight")

    def penalty(self, turn: Turn) -> Penalty | None:
        if not self.item_weight and not self.user_weight:
            return None
        popular = self._mined(turn)
        if popular is None:
            return None
        received = {n: t[popular] for n, t in turn.model.items() if _table(t, turn)}
        return Pull(popular, received, self.item_weight, self.user_weight)

    def learn(self, total: Total, turn: Turn) -> State:
        if _POPULAR in turn.memory:
            return turn.memory
        popular = self._mined(turn)
        if popular is not None:
            return {_POPULAR: popular}
        return {_FIRST + n: turn.model[n] for n in total.tables if n in turn.model}

    def _mined(self, turn: Turn) -> Tensor | None:
        """The most changed items, most changed first; None before there were two."""
        if _POPULAR in turn.memory:
            return turn.memory[_POPULAR]
        change = [
            (turn.model[name.removeprefix(_FIRST)] - before).square().sum(1)
            for name, before in turn.memory.items()
        ]
        if not change:
            return None
        moved = torch.stack(change).sum(0)
        return moved.argsort(descending=True, stable=True)[: self.popular]

    def guarantee(self) -> Guarantee:
        return not_private(
            trust="the server sees every row as it was trained",
            covers="the local loss, against poisoned item rows",
            caveats=("a defense of the model, not of privacy: uploads leak as before",),
        )


def _table(tensor: Tensor, turn: Turn) -> bool:
    return tensor.dim() == 2 and len(tensor) == turn.shape.items


@dataclass(frozen=True, eq=False)
class Pull(Penalty):
    """Regula's two terms at one round's popular rows."""

    popular: Tensor  # (popular,) the most popular first
    received: Mapping[str, Tensor]  # by table: (popular, width)
    item_weight: float
    user_weight: float

    def rows(self, own: Own) -> Tensor | None:
        """-a sum_r w_r mean_i of d cos(p_r, v_i) / d v_i."""
        if not self.item_weight:
            return None
        unit = _unit(self.received[own.table])
        aim = (self._weights()[:, None] * unit).sum(0)
        length = vector_norm(own.rows, dim=2, keepdim=True).clamp_min(_SMALLEST)
        v = own.rows / length
        slope = (aim - (v * aim).sum(2, keepdim=True) * v) / length
        share = own.samples * ~torch.isin(own.item, self.popular)
        share = share / share.sum(1, keepdim=True).clamp_min(1)
        found: Tensor = slope * share[..., None] * -self.item_weight
        return found

    def user(self, own: Own) -> Tensor | None:
        """-b / d times the gradient of sum_r w_r KL(softmax(u) || softmax(p_r))."""
        if not self.user_weight or own.user is None:
            return None
        theirs = _log_softmax(self.received[own.table])
        mean = (self._weights()[:, None] * theirs).sum(0)
        log = _log_softmax(own.user)
        apart, chance = log - mean, aligned(torch.exp, log)
        slope = chance * (apart - (chance * apart).sum(1, keepdim=True))
        found: Tensor = slope * (-self.user_weight / own.user.shape[1])
        return found

    def _weights(self) -> Tensor:
        count = len(self.popular)
        rank = torch.arange(count, 0, -1).float().square()
        return rank / rank.sum()


def _log_softmax(x: Tensor) -> Tensor:
    """By row; torch's own gives other bits where other rows are beside it."""
    down = x - x.amax(1, keepdim=True)
    total = aligned(torch.exp, down).sum(1, keepdim=True)
    return down - aligned(torch.log, total)


def _unit(x: Tensor) -> Tensor:
    length: Tensor = vector_norm(x, dim=1, keepdim=True)
    return x / length.clamp_min(_SMALLEST)
