"""FedRecAttack: model poisoning with the help of few public interactions.

Rong, Ye, Chen, Yuen, He and Chen, FedRecAttack, ICDE 2022. The adversary approximates
the users' vectors, takes the gradient that lifts its targets into their lists, and has
its clients share it out: in every round each takes from what the ones before it left,
of a few rows, at most ``clip`` of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt

import torch
from torch import Tensor
from torch.linalg import vector_norm

from privfed.checks import at_least, not_negative, positive
from privfed.errors import SettingsError
from privfed.interfaces import State
from privfed.messages import Uploads
from privfed.poisoners.crafting.promoter import Promoter
from privfed.poisoners.crafting.rows import Crafted, replaced, scale_of
from privfed.poisoners.targeted.approximation import (
    Fit,
    Known,
    Pool,
    drawn,
    first_guess,
)
from privfed.poisoners.targeted.rivals import Aims
from privfed.poisoning import Plot, Sortie
from privfed.seeds import Stream

_FIRST_SIZE, _BLIND_SIZE = 0.01, 0.1  # of made-up vectors, with and without knowledge
_STILL = 1e-4  # a model that moved less in all is the one of before


@dataclass(frozen=True)
class FedRecAttack(Promoter):
    """Lifts targets by a gradient over approximated users, shared out among clients.

    Knows ``public`` of each user's interactions (xi, rounded up); of 0 it makes users
    up. A client sends ``rows`` item rows (kappa), chosen at its first participation by
    the length of what is left, each at most ``clip`` long in units of the gradient.
    Scores are taken for inner products with the item rows, of several tables side by
    side. ``noise`` is the variance of what is added to choices and rows, ``best`` the
    length of the users' lists.
    """

    rows: int = 60
    public: float = 0.01
    clip: float = 1.0
    learning_rate: float = 0.01  # of the approximation
    batch: int = 256  # users of one step of it
    noise: float = 1e-7
    best: int = 10

    trains = False
    paper = "Rong et al., ICDE 2022"

    def __post_init__(self) -> None:
        at_least(self, 1, "rows", "batch", "best")
        positive(self, "clip", "learning_rate")
        not_negative(self, "noise")
        if not 0 <= self.public <= 1:
            raise ValueError(f"public must be a share from 0 to 1, got {self.public}")

    def public_share(self) -> float:
        return self.public

    def prepare(self, plot: Plot) -> "FedRecAttack":
        """Raises SettingsError where the targets are too many for lists or rows."""
        most = min(self.rows, self.best, plot.items)
        if len(plot.targets) > most:
            raise SettingsError(
                f"fedrecattack: {len(plot.targets)} targets, and with rows={self.rows} "
                f"and best={self.best} it serves {most}; lower --targets"
            )
        return _Ready(**vars(self), scene=_Scene.of(self, plot))


@dataclass(frozen=True, eq=False)
class _Scene:
    """What stays the same from round to round."""

    users: int
    aims: Aims
    pool: Pool | None  # None where nothing is known

    @classmethod
    def of(cls, attack: FedRecAttack, plot: Plot) -> "_Scene":
        users, items = plot.clients - len(plot.mine), plot.items
        nothing = torch.zeros(0, dtype=torch.int64)
        known = Known(users, items, nothing, nothing)
        if plot.public is not None:
            known = Known.of(plot.public, users, items)
        aims = Aims.of(known, plot.targets, attack.best)
        return cls(users, aims, Pool.of(known) if len(known.item) else None)


@dataclass(frozen=True)
class _Ready(FedRecAttack):
    """The attack on a population and targets that are known."""

    scene: _Scene = field(kw_only=True)

    def start(self, plot: Plot) -> State:
        size = len(plot.mine), min(self.rows, plot.items)
        return {"rows": torch.full(size, -1)}  # -1: this client has not chosen yet

    def forge(self, memory: State, sortie: Sortie, plot: Plot) -> tuple[State, Uploads]:
        table = torch.cat([sortie.model[name] for name in sortie.uploads.rows], 1)
        memory = self._looked(memory, table, sortie.stream, plot)
        here = torch.searchsorted(plot.mine, sortie.clients)
        left, items = memory["left"].clone(), memory["rows"][here]  # (here, rows)
        size = (*items.shape, table.shape[1])
        value = self._noise(size, sortie.stream.of("rows"))
        new = (items[:, 0] < 0).tolist()
        # one after the other: each takes of what the ones before it left
        for k, (item, taken) in enumerate(zip(items, value, strict=True)):
            if new[k]:
                item.copy_(self._chosen(left, int(sortie.clients[k]), plot))
            taken += torch.renorm(left.index_select(0, item), 2, 0, self.clip)
            left.index_add_(0, item, taken, alpha=-1)
        rows = memory["rows"].index_copy(0, here, items)
        uploads = self._sent(sortie, items, value, plot.items)
        return {**memory, "left": left, "rows": rows}, uploads

    def _looked(
        self, memory: State, table: Tensor, stream: Stream, plot: Plot
    ) -> State:
        """The memory after a look at an item table: a new gradient where it moved."""
        if "seen" in memory and (table - memory["seen"]).abs().sum() < _STILL:
            return memory
        fresh = self._approximated(memory, table, stream, plot)
        left = self.scene.aims.slope(fresh["users"], table)
        return {**memory, **fresh, "seen": table, "left": left}

    def _approximated(
        self, memory: State, table: Tensor, stream: Stream, plot: Plot
    ) -> State:
        users, width = self.scene.users, table.shape[1]
        if self.scene.pool is None:
            return {"users": drawn(users, width, _BLIND_SIZE, stream.of("users"))}
        if "users" not in memory:
            begin = plot.stream.of("users")
            memory = first_guess(users, width, _FIRST_SIZE, begin)
        fit = Fit(self.learning_rate, self.batch)
        return fit.after(memory, self.scene.pool, table, stream)

    def _chosen(self, left: Tensor, client: int, plot: Plot) -> Tensor:
        """The targets, and other items drawn by the length of their rows: (rows,)."""
        items, stream = len(left), plot.stream.of("choice", client)
        noisy = left + self._noise(left.shape, stream)
        length: Tensor = vector_norm(noisy, dim=1).double().clamp_min(1e-30)
        item = torch.arange(items)
        waiting = -stream.uniform(torch.zeros_like(item), item).log() / length
        waiting[plot.targets] = torch.inf
        few = min(self.rows, items) - len(plot.targets)
        others: Tensor = waiting.topk(few, largest=False).indices
        return torch.cat([plot.targets, others])

    def _noise(self, size: Sequence[int], stream: Stream) -> Tensor:
        """Normal draws, made on the CPU."""
        drawn = torch.randn(size, generator=stream.generator(), device="cpu")
        return drawn.to(torch.get_default_device()) * sqrt(self.noise)

    def _sent(self, sortie: Sortie, item: Tensor, value: Tensor, items: int) -> Uploads:
        """Gradients (clients, rows, width) as uploads."""
        names = [*sortie.uploads.rows]
        parts = torch.split(value, [sortie.model[n].shape[1] for n in names], 2)
        rows = {
            name: Crafted(item, part * -scale_of(sortie.uploads, name))
            for name, part in zip(names, parts, strict=True)
        }
        return replaced(sortie.uploads, rows, {}, items)
