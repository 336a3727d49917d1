"""Explicit boosting: malicious users who want the target more and more.

The part of PipAttack (Zhang et al., WSDM 2022) that needs no knowledge, as PIECK
(Zhang et al., ICDE 2024) has it in its comparison.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.checks import positive
from privfed.interfaces import State
from privfed.messages import Uploads
from privfed.poisoners.crafting.promoter import ByScore
from privfed.poisoners.crafting.pull import Scene, made_up
from privfed.poisoners.crafting.rows import scale_of
from privfed.poisoners.crafting.scorer import scorer
from privfed.poisoning import Plot, Sortie

OWN = "own."  # what a client's user tensors are remembered under


@dataclass(frozen=True)
class ExplicitBoosting(ByScore):
    """Explicit boosting: each client's own user is trained to want the targets.

    It sends the gradient of its cross-entropy by the targets' rows and by the layers
    that the server holds, ``boost`` times. Users start normal of deviation
    ``start_size`` and learn as the method's users do.
    """

    start_size: float = 1.0
    boost: float = 1.0

    trains = False
    paper = "Zhang et al., WSDM 2022, as in Zhang et al., ICDE 2024"

    def __post_init__(self) -> None:
        positive(self, "start_size", "boost")

    def start(self, plot: Plot) -> State:
        return remembered_users(plot, self.start_size)

    def forge(self, memory: State, sortie: Sortie, plot: Plot) -> tuple[State, Uploads]:
        scene = users_scene(memory, sortie, plot)
        uploads = sortie.uploads
        sent = scene.pull().upload(uploads, plot.targets, plot.items, self.boost)
        return users_after(memory, scene, sortie, plot), sent


def remembered_users(plot: Plot, size: float) -> State:
    """One user for each malicious client, normal of deviation ``size``."""
    of, draws = scorer(plot.method, plot.shape), plot.stream.of("users")
    own = made_up(of, plot.mine, 1, size, draws)
    return {OWN + name: value for name, value in own.items()}


def users_scene(memory: State, sortie: Sortie, plot: Plot) -> Scene:
    """The users of a round's clients before the targets."""
    of, at = scorer(plot.method, plot.shape), _place(sortie, plot)
    own = {name: memory[OWN + name][at] for name in of.own if OWN + name in memory}
    return Scene.of(of, sortie.model, own, plot.targets, len(at))


def users_after(memory: State, scene: Scene, sortie: Sortie, plot: Plot) -> State:
    """What is remembered once these users have taken their own step."""
    rate = scale_of(sortie.uploads, scene.scorer.tables[0])
    moved, at = scene.stepped(rate).own, _place(sortie, plot)
    after = {
        name: value.index_copy(0, at, moved[name.removeprefix(OWN)])
        for name, value in memory.items()
        if name.startswith(OWN)
    }
    return {**memory, **after}


def _place(sortie: Sortie, plot: Plot) -> Tensor:
    return torch.searchsorted(plot.mine, sortie.clients)
