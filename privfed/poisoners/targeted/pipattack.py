"""PipAttack: a target that looks popular, wanted by made-up users, in quiet uploads.

Zhang et al., PipAttack, WSDM 2022; there is no official code, and this follows the
paper's description. L = L_EB + a L_pop + c L_dist: explicit boosting; the cross-entropy
of the target's rows for the highest level of popularity, by an estimator that learned
levels from all item rows; and the distance to what the client would have sent.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from privfed.adversary import Knowledge
from privfed.checks import at_least, positive
from privfed.data.world import Pairs
from privfed.devices.recipe import Values
from privfed.interfaces import State
from privfed.messages import Rows, Uploads, summed
from privfed.poisoners.crafting.cover import cover
from privfed.poisoners.crafting.promoter import ByScore
from privfed.poisoners.crafting.pull import Pull, Scene
from privfed.poisoners.crafting.rows import Crafted, replaced, scale_of
from privfed.poisoners.crafting.scorer import Scorer, scorer
from privfed.poisoners.targeted.boosting import (
    remembered_users,
    users_after,
    users_scene,
)
from privfed.poisoners.targeted.levels import Estimator, levels_of
from privfed.poisoning import Plot, Sortie

_ESTIMATOR = "estimator."


@dataclass(frozen=True, eq=False)
class Usual:
    """What the clients would have sent of what the attack moves."""

    rows: Values  # (clients, targets, width), by table
    shared: Values  # (clients, ...)


@dataclass(frozen=True)
class PipAttack(ByScore):
    """PipAttack: explicit boosting toward the rows of popular items.

    Clients train as usual on the targets and ``fillers`` random items. Of what they
    would send, a delta h, the targets' rows and the shared layers become the delta that
    minimizes L_EB + ``popular`` L_pop + ``quiet`` / (2 rate) |delta - h|^2, the first
    two taken as linear around h: h less 1 / ``quiet`` steps of SGD on the attack's
    loss. An item is of the highest of three levels of popularity in the ``top`` share
    of the catalog, and of the middle one in the ``middle`` share after it. The
    estimator takes ``fit`` steps a round. Where a method's rates make up for averaging
    (fedncf), that step is long: take ``quiet`` 100.
    """

    popular: float = 1.0
    quiet: float = 1.0
    fillers: int = 30
    top: float = 0.1
    middle: float = 0.45
    hidden: int = 32
    fit: int = 20
    start_size: float = 1.0  # deviation of the first users

    knows = Knowledge(popularity=True)
    paper = "Zhang et al., WSDM 2022"

    def __post_init__(self) -> None:
        positive(self, "popular", "quiet", "top", "middle", "start_size")
        at_least(self, 1, "hidden", "fit")
        at_least(self, 0, "fillers")
        if self.top + self.middle > 1:
            raise ValueError(f"top and middle exceed 1: {self.top} + {self.middle}")

    def data(self, plot: Plot) -> Pairs:
        return cover(plot, None, self.fillers)

    @property
    def estimator(self) -> Estimator:
        """What tells an item's popularity by its row."""
        return Estimator(self.hidden)

    def start(self, plot: Plot) -> State:
        users = remembered_users(plot, self.start_size)
        model, _ = plot.method.init(replace(plot.shape, clients=1), plot.stream)
        width = _side_by_side(scorer(plot.method, plot.shape), model).shape[1]
        learner = self.estimator.start(width, 3, plot.stream.of("estimator"))
        return {**users, **_remembered(learner)}

    def forge(self, memory: State, sortie: Sortie, plot: Plot) -> tuple[State, Uploads]:
        assert plot.popularity is not None
        scene = users_scene(memory, sortie, plot)
        table = _side_by_side(scene.scorer, sortie.model)
        level = levels_of(plot.popularity, (self.top, self.middle))
        learner = self.estimator.learned(_recalled(memory), table, level, self.fit)
        usual = _usual(scene, sortie.uploads, plot.targets)
        there = _moved(scene, usual)
        pull = there.pull()
        liked = self._popular(there, learner, table)
        rows = {name: pull.rows[name] + self.popular * liked[name] for name in liked}
        sent = self._sent(usual, replace(pull, rows=rows), sortie.uploads, plot)
        after = users_after(memory, scene, sortie, plot)
        return {**after, **_remembered(learner)}, sent

    def _popular(
        self, scene: Scene, learner: State, table: Tensor
    ) -> dict[str, Tensor]:
        """Gradient of L_pop by each client's copies of the targets' rows."""
        rows = {n: v.detach().clone().requires_grad_() for n, v in scene.rows.items()}
        row = torch.cat([rows[name] for name in scene.scorer.tables], 2)
        logit = self.estimator.logits(learner, row, table)
        loss = -logit.log_softmax(2)[..., -1].mean(1).sum()
        slopes = torch.autograd.grad(loss, [*rows.values()])
        return dict(zip(rows, slopes, strict=True))

    def _sent(self, usual: Usual, slope: Pull, uploads: Uploads, plot: Plot) -> Uploads:
        """The usual upload, its targets' rows and layers drawn to the attack."""

        def drawn(name: str, h: Tensor, slope: Tensor) -> Tensor:
            return h - slope * (scale_of(uploads, name) / self.quiet)

        dense = {n: drawn(n, h, slope.shared[n]) for n, h in usual.shared.items()}
        rows = {
            name: _with(
                uploads.rows[name],
                Crafted(plot.targets, drawn(name, h, slope.rows[name])),
                len(uploads.clients),
                plot.items,
            )
            for name, h in usual.rows.items()
        }
        return replaced(uploads, rows, dense, plot.items)


def _remembered(learner: State) -> State:
    return {_ESTIMATOR + name: value for name, value in learner.items()}


def _recalled(memory: State) -> State:
    return {
        name.removeprefix(_ESTIMATOR): value
        for name, value in memory.items()
        if name.startswith(_ESTIMATOR)
    }


def _usual(scene: Scene, uploads: Uploads, targets: Tensor) -> Usual:
    def of(name: str, like: Tensor) -> Tensor:
        sent, out = uploads.rows[name], torch.zeros_like(like)
        place = (sent.item[:, None] == targets).nonzero()
        out[sent.sender[place[:, 0]], place[:, 1]] = sent.value[place[:, 0]]
        return out

    return Usual(
        {name: of(name, like) for name, like in scene.rows.items()},
        {name: uploads.dense[name] for name in scene.shared},
    )


def _moved(scene: Scene, by: Usual) -> Scene:
    """The same users before a model that has moved."""
    rows = {name: value + by.rows[name] for name, value in scene.rows.items()}
    shared = {name: value + by.shared[name] for name, value in scene.shared.items()}
    return replace(scene, rows=rows, shared=shared)


def _with(rows: Rows, crafted: Crafted, clients: int, items: int) -> Rows:
    """Rows with those of the crafted items put in the place of what was there."""
    kept, new = ~torch.isin(rows.item, crafted.item), crafted.rows(clients, items)
    return summed(
        torch.cat([rows.sender[kept], new.sender]),
        torch.cat([rows.item[kept], new.item]),
        torch.cat([rows.value[kept], new.value]),
        items,
    )


def _side_by_side(of: Scorer, model: State) -> Tensor:
    """All item tables as one, (items, widths)."""
    return torch.cat([model[name] for name in of.tables], 1)
