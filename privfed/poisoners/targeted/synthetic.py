"""A-ra and A-hum: gradients that make made-up users want the target.

Rong, He and Chen, Poisoning Deep Learning Based Recommender Model in Federated Learning
Scenarios, IJCAI 2022. Each malicious client, in each of its rounds, makes users up and
sends the gradient of their cross-entropy for the target, by the target's rows and by
all layers that the server holds. It knows nothing but the model that it was sent.
"""

from abc import abstractmethod
from dataclasses import dataclass

from privfed.checks import at_least, positive
from privfed.interfaces import State
from privfed.messages import Uploads
from privfed.poisoners.crafting.promoter import ByScore
from privfed.poisoners.crafting.pull import Scene, made_up, unwanted
from privfed.poisoners.crafting.rows import scale_of
from privfed.poisoners.crafting.scorer import scorer
from privfed.poisoning import Plot, Sortie


@dataclass(frozen=True)
class Synthetic(ByScore):
    """What both have in common: ``users`` made-up users a client, anew each round.

    Their vectors are normal of deviation ``start_size``. ``boost`` multiplies the
    upload; the paper sends it as it is.
    """

    users: int = 10
    start_size: float = 0.01
    boost: float = 1.0

    trains = False
    paper = "Rong, He and Chen, IJCAI 2022"

    def __post_init__(self) -> None:
        at_least(self, 1, "users")
        positive(self, "start_size", "boost")

    @abstractmethod
    def mined(self, scene: Scene, rate: float) -> Scene:
        """The users that the upload is made for."""

    def forge(self, memory: State, sortie: Sortie, plot: Plot) -> tuple[State, Uploads]:
        of, here = scorer(plot.method, plot.shape), sortie.clients
        draws = sortie.stream.of("users")
        own = made_up(of, here, self.users, self.start_size, draws)
        scene = Scene.of(of, sortie.model, own, plot.targets, len(here))
        rate = scale_of(sortie.uploads, of.tables[0])
        pull = self.mined(scene, rate).pull()
        sent = pull.upload(sortie.uploads, plot.targets, plot.items, self.boost)
        return memory, sent


@dataclass(frozen=True)
class ARa(Synthetic):
    """A-ra: makes random users want the targets."""

    def mined(self, scene: Scene, rate: float) -> Scene:
        return scene


@dataclass(frozen=True)
class AHum(Synthetic):
    """A-hum: makes hard users, who learned not to want the targets, want them.

    Before that, each user takes ``hard_steps`` steps of SGD away from the targets, at
    the learning rate of a device's private tensors.
    """

    hard_steps: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "hard_steps")

    def mined(self, scene: Scene, rate: float) -> Scene:
        for _ in range(self.hard_steps):
            scene = scene.stepped(rate, unwanted)
        return scene
