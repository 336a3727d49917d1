"""PIECK: targets made to look like popular items, without any prior knowledge.

Zhang, Yuan, Chen, Rong, Chen and Ren, Preventing the Popular Item Embedding Based
Attack in Federated Recommendations, ICDE 2024. Each malicious client mines popular
items from the models it is sent (crafting/mining.py), and uploads a gradient of the
targets' rows, uncut: that of the cosine to popular rows (IPE), or that of the loss of
users whose vectors are the popular rows (UEA).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import softplus

from privfed.checks import at_least, positive
from privfed.errors import SettingsError
from privfed.interfaces import State
from privfed.messages import Uploads
from privfed.poisoners.crafting.mining import begin, mine
from privfed.poisoners.crafting.promoter import ByScore, Promoter
from privfed.poisoners.crafting.rows import Crafted, replaced, scale_of
from privfed.poisoners.crafting.scorer import Scorer, copies, scorer
from privfed.poisoning import Plot, Sortie

_SMALLEST = 1e-8  # length of a row in a cosine
_FEW, _PULL_OF_FEW, _PULL_OF_MANY = 0.1, 0.9, 0.5


@dataclass(frozen=True)
class PIECKIPE(Promoter):
    """Turns the targets' rows toward those of the ``popular`` most popular items.

    The r-th counts N - r + 1; items in the targets' direction and against it are
    averaged apart. ``pull`` is the strength, None the published one: 0.9 where fewer
    than a tenth of the clients are malicious, else 0.5. On methods of several item
    tables each table is mined together and poisoned by itself.
    """

    popular: int = 10
    pull: float | None = None

    trains = False
    paper = "Zhang et al. (PIECK), ICDE 2024"

    def __post_init__(self) -> None:
        at_least(self, 1, "popular")
        if self.pull is not None:
            positive(self, "pull")

    def start(self, plot: Plot) -> State:
        return begin(plot, self.popular)

    def forge(self, memory: State, sortie: Sortie, plot: Plot) -> tuple[State, Uploads]:
        tables = _shared(sortie)
        memory, popular = mine(memory, sortie, plot, tables)
        pull = self._strength(plot) / len(plot.targets)
        rows = {
            name: toward(table[popular], table[plot.targets]) * pull
            for name, table in tables.items()
        }
        return memory, _sent(sortie, rows, {}, plot)

    def _strength(self, plot: Plot) -> float:
        if self.pull is not None:
            return self.pull
        share = len(plot.mine) / (plot.clients - len(plot.mine))
        return _PULL_OF_FEW if share < _FEW else _PULL_OF_MANY


def toward(popular: Tensor, target: Tensor) -> Tensor:
    """The gradient of minus the weighted cosines, (clients, targets, width).

    ``popular`` is (clients, popular, width), the most popular first, ``target``
    (targets, width). The loss is - sum_r w_r cos(p_r, v) / n, w_r = (N - r + 1) / sum
    and n how many items' cosine has the sign of this one's.
    """
    count = popular.shape[1]
    rank = torch.arange(count, 0, -1, dtype=popular.dtype, device=popular.device)
    length = vector_norm(target, dim=1, keepdim=True).clamp_min(_SMALLEST)
    p, v = _unit(popular), target / length
    cosine = torch.einsum("cpw,tw->ctp", p, v)
    near = (cosine > 0).to(p)
    alike = torch.where(
        cosine > 0, near.sum(2, keepdim=True), count - near.sum(2, keepdim=True)
    )
    weight = rank / rank.sum() / alike  # (clients, targets, popular)
    along = torch.einsum("ctp,cpw->ctw", weight, p)
    slope: Tensor = ((weight * cosine).sum(2, keepdim=True) * v - along) / length
    return slope


def _unit(x: Tensor) -> Tensor:
    length: Tensor = vector_norm(x, dim=-1, keepdim=True)
    return x / length.clamp_min(_SMALLEST)


@dataclass(frozen=True)
class PIECKUEA(ByScore):
    """Lifts the targets' scores for users whose vectors are popular items' rows.

    The ``popular`` items are taken in ``batches``, the most popular first; the loss is
    binary cross-entropy with label 1. The released code takes each batch ``repeats``
    times and never clears the gradient, so that of B batches the b-th counts
    (R + 1) / 2 + R (B - b) times, the first more than the last; most of the published
    effect rests on it. ``repeats=0`` takes each once.
    """

    popular: int = 150
    batches: int = 5
    repeats: int = 3

    trains = False
    paper = "Zhang et al. (PIECK), ICDE 2024"

    def __post_init__(self) -> None:
        at_least(self, 1, "popular", "batches")
        at_least(self, 0, "repeats")
        if self.popular < self.batches:
            raise ValueError(
                f"popular must be at least batches, got {self.popular} and "
                f"{self.batches}"
            )

    def prepare(self, plot: Plot) -> "PIECKUEA":
        """Raises SettingsError where item rows cannot stand for users."""
        scores = scorer(plot.method, plot.shape)
        return _Ready(**vars(self), scores=scores, rows=_rows_for(scores, plot))

    def start(self, plot: Plot) -> State:
        return begin(plot, self.popular)

    def weights(self, targets: int) -> Tensor:
        """How often a target's gradient from a batch counts, (batches, targets)."""
        each = self.batches * targets
        if not self.repeats:
            return torch.full((self.batches, targets), 1 / each)
        later = torch.arange(each - 1, -1, -1).view(self.batches, targets)
        return ((self.repeats + 1) / 2 + self.repeats * later) / each


@dataclass(frozen=True)
class _Ready(PIECKUEA):
    """The attack on a method that is known.

    ``rows`` says of each private tensor whose rows stand for it; "" makes it zero.
    """

    scores: Scorer = field(kw_only=True)
    rows: Mapping[str, str] = field(kw_only=True)

    def forge(self, memory: State, sortie: Sortie, plot: Plot) -> tuple[State, Uploads]:
        memory, popular = mine(memory, sortie, plot, self.scores.tables)
        size = self.popular // self.batches
        item = popular[:, : size * self.batches]
        weight = self.weights(len(plot.targets)).repeat_interleave(size, 0) / size
        clients, each = item.shape
        rows = {
            name: sortie.model[name][plot.targets].expand(clients, -1, -1).clone()
            for name in self.scores.tables
        }
        shared = copies(self.scores.shared, sortie.model, clients)
        trained = {n: v.clone().requires_grad_() for n, v in {**rows, **shared}.items()}
        # (clients * each, ...): every client scores with each of its stand-ins
        wide = {n: v.repeat_interleave(each, 0) for n, v in trained.items()}
        score = self.scores.each(wide, wide, self._users(sortie.model, item.flatten()))
        loss = (softplus(-score).view(clients, each, -1) * weight).sum()
        slopes = torch.autograd.grad(loss, list(trained.values()))
        found = dict(zip(trained, slopes, strict=True))
        dense = {name: found[name] for name in shared}
        return memory, _sent(sortie, {n: found[n] for n in rows}, dense, plot)

    def _users(self, model: State, item: Tensor) -> dict[str, Tensor]:
        """Private tensors of users who are these items, (users, ...)."""
        return {
            name: model[table][item].view(-1, *self.scores.own[name])
            if table
            else torch.zeros(len(item), *self.scores.own[name])
            for name, table in self.rows.items()
        }


def _rows_for(scores: Scorer, plot: Plot) -> Mapping[str, str]:
    """The item table whose rows stand for each private tensor; "" for a mere bias.

    Of several tables the one named as the tensor, "items" in place of "user". Raises
    SettingsError where none is as wide.
    """
    one = replace(plot.shape, clients=1)
    model, _ = plot.method.init(one, plot.stream.of("width"))
    found = {}
    for name, size in scores.own.items():
        tables = [
            table
            for table in scores.tables
            if model[table].shape[1] == prod(size)
            and (len(scores.tables) == 1 or table == name.replace("user", "items", 1))
        ]
        if not tables and size != (1,):
            raise SettingsError(
                f"pieck_uea takes item rows for users, and {type(plot.method).__name__}"
                f" scores by a private {name} that no item row can stand for; take "
                "pieck_ipe, or attack mf_frs, bpr or fedncf"
            )
        found[name] = tables[0] if tables else ""
    return found


def _shared(sortie: Sortie) -> dict[str, Tensor]:
    """The item tables that are received and sent, by name."""
    return {name: sortie.model[name] for name in sortie.uploads.rows}


def _sent(
    sortie: Sortie,
    rows: Mapping[str, Tensor],
    dense: Mapping[str, Tensor],
    plot: Plot,
) -> Uploads:
    """An upload of these gradients: of the targets' rows, (here, targets, width)."""
    uploads = sortie.uploads
    crafted = {
        name: Crafted(plot.targets, value * -scale_of(uploads, name))
        for name, value in rows.items()
    }
    whole = {n: value * -scale_of(uploads, n) for n, value in dense.items()}
    return replaced(uploads, crafted, whole, plot.items)
