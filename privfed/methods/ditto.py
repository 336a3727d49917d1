"""Ditto on a neural recommender: FedAvg, and a personal model drawn towards it.

Li et al., Ditto: Fair and Robust Federated Learning Through Personalization, ICML
2021. The original's personal model is a whole model; here item rows stay shared.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from privfed.data.cohort import Cohort
from privfed.data.world import Shape
from privfed.interfaces import Round, State, Trained
from privfed.methods.neural import shared
from privfed.methods.neural.averaged import Averaged
from privfed.seeds import Stream

_OWN = "own."
_BEGUN = "own begun"


@dataclass(frozen=True)
class Ditto(Averaged):
    """Federated averaging, and a personal user row and dense layers on each device.

    The personal run steps on the same batches as the global one, with
    ``pull`` * (personal - received) added to its gradient, ``pull`` being the paper's
    lambda. Item rows move during a personal run and are then dropped. A client that
    has not trained yet predicts with, and later starts from, the shared model. DP-SGD
    is for the global run; nothing of the personal one leaves the device.
    """

    pull: float = 1.0

    keeps = "a user row and all dense layers of its own"
    sends = (
        "change of its user row, of the item rows touched and of all dense layers, "
        "from the global run alone"
    )
    paper = "Li et al., ICML 2021; as in Cali3F"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.pull < float("inf"):
            raise ValueError(f"pull must be 0 or more, got {self.pull}")

    def init(self, shape: Shape, stream: Stream) -> tuple[State, State]:
        model = self.first(shape, stream)
        layers = shared.copies(shared.dense(model), shape.clients)
        mine = {**shared.users(model), **layers}
        private = {f"{_OWN}{name}": value for name, value in mine.items()}
        return model, {**private, _BEGUN: torch.zeros(1).expand(shape.clients)}

    def train(
        self, model: State, private: State, cohort: Cohort, round: Round
    ) -> Trained:
        received = shared.received(model, cohort.clients)
        samples = self.samples(cohort, round)
        common = self.fit(model, received, samples, round)
        mine = _personal(received, private, cohort.clients)
        # Nothing sent depends on the personal run, which therefore needs no noise.
        alone = replace(round, privacy=None)
        own = self.fit(model, mine, samples, alone, (self.pull, received))
        kept = {f"{_OWN}{n}": v for n, v in {**own.users, **own.dense}.items()}
        begun = torch.maximum(
            private[_BEGUN][cohort.clients], (cohort.counts > 0).float()
        )
        sent = self.sent(cohort, common, received)
        return Trained({**kept, _BEGUN: begun}, {}, sent, own.loss)

    def score(self, model: State, private: State, cohort: Cohort) -> Tensor:
        received = shared.received(model, cohort.clients)
        mine = _personal(received, private, cohort.clients)
        layers = {name: mine[name] for name in shared.dense(model)}
        rows = {name: mine[name] for name in shared.users(model)}
        return self.neural().scores({**shared.items(model), **layers}, rows)


def _personal(received: State, private: State, clients: Tensor) -> State:
    """Each client's personal model, which begins as the first one it received."""
    begun = private[_BEGUN][clients] > 0

    def pick(name: str, value: Tensor) -> Tensor:
        mask = begun.view(-1, *[1] * (value.dim() - 1))
        return torch.where(mask, private[f"{_OWN}{name}"][clients], value)

    return {name: pick(name, value) for name, value in received.items()}
