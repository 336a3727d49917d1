"""VBPR with item features of any kind.

He and McAuley, AAAI 2016, in the form that MMRec has and FedMR compares with: score
<p_u, [q_i, W f_i + b]>, BPR loss plus a penalty on the vectors' unsquared lengths,
Adam. Written here, for cornac 3.0.1 adds a visual bias of shape (batch, 1) to scores
of shape (batch,), and so compares every pair of a batch with every other's bias.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.linalg import vector_norm
from torch.nn.functional import linear, logsigmoid

from privfed.data.world import World
from privfed.errors import SettingsError


@dataclass(frozen=True)
class VBPR:
    """Settings of VBPR; ``width`` is that of ids and of projected features, each.

    ``pool`` says what negatives are drawn from. With ``judge``, a figure of scores on
    validation pairs, the best of every ``every`` epochs is returned.
    """

    width: int = 64
    epochs: int = 100
    batch: int = 2048
    learning_rate: float = 1e-3
    penalty: float = 1.0
    pool: Literal["all_items", "items_in_train"] = "all_items"
    every: int = 5

    def scores(
        self, world: World, seed: int, judge: Callable[[Tensor], float] | None = None
    ) -> Tensor:
        """Scores of all items for all clients, (clients, items).

        Raises SettingsError where the world has no features.
        """
        if not world.features:
            raise SettingsError("VBPR needs item features; give --features")
        rng = Generator().manual_seed(seed)
        features = torch.cat([*world.features.values()], 1)
        p = self._start(world, features.shape[1], rng)
        adam = torch.optim.Adam(p.values(), lr=self.learning_rate)
        best, chosen = float("-inf"), torch.zeros(0)
        for epoch in range(1, self.epochs + 1):
            for user, taken, other in self._triples(world, rng):
                loss = self._loss(p, features, user, taken, other)
                grads = torch.autograd.grad(loss, [*p.values()])
                for tensor, grad in zip(p.values(), grads, strict=True):
                    tensor.grad = grad
                adam.step()
            if epoch != self.epochs and (judge is None or epoch % self.every):
                continue
            with torch.no_grad():
                found = p["users"] @ _items(p, features).T
            value = judge(found) if judge else 0.0
            if value > best:
                best, chosen = value, found
        return chosen

    def _start(self, world: World, features: int, rng: Generator) -> dict[str, Tensor]:
        """Xavier-uniform tables, as MMRec begins."""
        sizes = {
            "users": (world.shape.clients, 2 * self.width),
            "items": (world.shape.items, self.width),
            "weight": (self.width, features),
        }
        p = {
            name: (2 * torch.rand(size, generator=rng) - 1) * (6 / sum(size)) ** 0.5
            for name, size in sizes.items()
        }
        p["bias"] = torch.zeros(self.width)
        return {name: value.requires_grad_() for name, value in p.items()}

    def _triples(
        self, world: World, rng: Generator
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """An epoch of shuffled (user, item taken, item not taken), in batches."""
        train, items = world.train, world.shape.items
        met = torch.zeros(world.shape.clients, items, dtype=torch.bool)
        met[train.owner, train.item] = True
        pool = world.pool if self.pool == "items_in_train" else torch.arange(items)
        left = (~met[:, pool]).sum(1)[train.owner] > 0
        order = torch.randperm(len(train.item), generator=rng)
        for at in torch.split(order[left[order]], self.batch):
            user = train.owner[at]
            other = pool[torch.randint(len(pool), at.shape, generator=rng)]
            while bool((wrong := met[user, other]).any()):
                again = torch.randint(len(pool), (int(wrong.sum()),), generator=rng)
                other[wrong] = pool[again]
            yield user, train.item[at], other

    def _loss(
        self,
        p: Mapping[str, Tensor],
        features: Tensor,
        user: Tensor,
        taken: Tensor,
        other: Tensor,
    ) -> Tensor:
        u = p["users"][user]
        v, w = (_items(p, features, at) for at in (taken, other))
        lengths: Tensor = vector_norm(u) + vector_norm(v) + vector_norm(w)
        gain: Tensor = logsigmoid((u * (v - w)).sum(1)).mean()
        return self.penalty * lengths / len(user) - gain


def _items(
    p: Mapping[str, Tensor], features: Tensor, at: Tensor | slice = slice(None)
) -> Tensor:
    """Item vectors: the id's, then the projected features'."""
    content = linear(features[at], p["weight"], p["bias"])
    return torch.cat([p["items"][at], content], 1)
