"""Which way the model must move for made-up users to want the targets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import softplus

from privfed.devices.recipe import EACH, Values
from privfed.interfaces import START, State
from privfed.messages import Uploads
from privfed.poisoners.crafting.rows import Crafted, replaced, scale_of
from privfed.poisoners.crafting.scorer import Scorer
from privfed.seeds import Stream


def wanted(logit: Tensor) -> Tensor:
    """Cross-entropy of logits whose label is 1."""
    return softplus(-logit)


def unwanted(logit: Tensor) -> Tensor:
    """Cross-entropy of logits whose label is 0."""
    return softplus(logit)


@dataclass(frozen=True, eq=False)
class Pull:
    """Gradients of each malicious client's mean loss over its made-up users."""

    rows: Mapping[str, Tensor]  # (clients, targets, width), by table
    shared: Mapping[str, Tensor]  # (clients, ...)
    own: Mapping[str, Tensor]  # (clients * users, ...): of each user's own mean loss

    def upload(
        self, uploads: Uploads, targets: Tensor, items: int, boost: float = 1.0
    ) -> Uploads:
        """A step on the targets' rows and the shared tensors, and nothing else."""

        def moved(name: str, slope: Tensor) -> Tensor:
            return slope * (-boost * scale_of(uploads, name))

        rows = {n: Crafted(targets, moved(n, slope)) for n, slope in self.rows.items()}
        dense = {n: moved(n, slope) for n, slope in self.shared.items()}
        return replaced(uploads, rows, dense, items)


@dataclass(frozen=True, eq=False)
class Scene:
    """Some malicious clients' made-up users before the targets.

    ``own`` holds the users' tensors, (clients * users, ...), client after client;
    ``rows`` and ``shared`` are each client's copies: (clients, targets, width) by
    table, and (clients, ...).
    """

    scorer: Scorer
    rows: Values
    shared: Values
    own: Values

    @classmethod
    def of(
        cls, scorer: Scorer, model: State, own: Values, targets: Tensor, clients: int
    ) -> "Scene":
        """With the model as received, and ``own`` as ``made_up`` gives it."""
        item = targets.expand(clients, -1)
        own = _whole(scorer, model, own, targets, len(next(iter(own.values()))))
        shared = {n: model[n].expand(clients, *model[n].shape) for n in scorer.shared}
        return cls(scorer, scorer.rows(model, item), shared, own)

    def pull(self, loss: Callable[[Tensor], Tensor] = wanted) -> Pull:
        """Where ``loss`` of a logit is what users suffer; its mean is over targets."""
        rows, shared, own = (_leaves(v) for v in (self.rows, self.shared, self.own))
        clients = len(next(iter(rows.values())))
        users = len(next(iter(own.values()))) // clients

        def spread(values: Values) -> dict[str, Tensor]:
            return {n: v.repeat_interleave(users, 0) for n, v in values.items()}

        each = loss(self.scorer.each(spread(rows), spread(shared), own)).mean(1)
        nodes = [*rows.values(), *shared.values(), *own.values()]
        found = iter(torch.autograd.grad(each.sum(), nodes, materialize_grads=True))
        return Pull(
            {name: next(found) / users for name in rows},
            {name: next(found) / users for name in shared},
            {name: next(found) for name in own},
        )

    def stepped(
        self, rate: float, loss: Callable[[Tensor], Tensor] = wanted
    ) -> "Scene":
        """After the users' step of SGD, each on its own loss.

        ``rate`` is that of tensors for which the method tells none; private item
        tables stay as they are.
        """
        slopes, rates = self.pull(loss).own, self.scorer.rates
        moved = {
            name: value - slopes[name] * rates.get(name, rate)
            for name, value in self.own.items()
            if self.scorer.own[name][0] != EACH
        }
        return replace(self, own={**self.own, **moved})


def made_up(
    scorer: Scorer, clients: Tensor, users: int, size: float, stream: Stream
) -> dict[str, Tensor]:
    """Users of normal tensors of deviation ``size``, (clients * users, ...).

    Each client draws its own. Private item tables are left out.
    """
    found: dict[str, Tensor] = {}
    for name, shape in scorer.own.items():
        if shape[0] != EACH:
            drawn = torch.empty(len(clients), users, *shape)
            stream.of(name).normal(clients, list(drawn))
            found[name] = drawn.flatten(0, 1) * size
    return found


def _whole(
    scorer: Scorer, model: State, own: Values, targets: Tensor, users: int
) -> Values:
    """Users with the rows of private item tables that all clients start with."""
    tables = {
        name: model[name + START][targets].expand(users, -1, -1)
        for name, shape in scorer.own.items()
        if shape[0] == EACH
    }
    return {**own, **tables}


def _leaves(values: Values) -> dict[str, Tensor]:
    return {name: v.detach().clone().requires_grad_() for name, v in values.items()}
