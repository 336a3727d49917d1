"""Cali3F: FedFast, and a head for each cluster that is calibrated to the shared one.

Zhu et al., Cali3F: Calibrated Fast Fair Federated Recommendation System, 2022. The
sign of the calibration is that of its Algorithm 1, not of its equation 6; means are
weighted by interactions, as its text has it. There is no published code.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from privfed.data.cohort import Cohort
from privfed.data.world import Shape
from privfed.devices.dpsgd import Entangled
from privfed.interfaces import SERVER, Round, State, Trained
from privfed.messages import Uploads
from privfed.methods.neural import clusters as step
from privfed.methods.neural import shared
from privfed.methods.neural.clustered import (
    CLUSTER,
    Clustered,
    flat,
    layers_of,
    mean_change,
)
from privfed.seeds import Stream

GLOBAL, OWN = "global.", "own."  # the two runs of a client, in names of its upload
HEADS = f"{SERVER}heads"  # (clusters, numbers)
HEARD = f"{SERVER}heard"  # (clients,) interactions, 0 of a client never heard of


@dataclass(frozen=True)
class Cali3F(Clustered, Entangled):
    """Dense layers for each cluster of alike users, kept near the shared ones.

    A delegate trains twice on the same batches, from the shared dense layers and from
    its cluster's head. The second run's user and item rows are what counts.
    ``calibrate`` is the paper's phi: 0 leaves the heads to themselves. Clients that
    the server has not heard of count as the average one where clusters are re-made.
    """

    calibrate: float = 0.1

    keeps = "nothing"
    sends = (
        "change of its user row and of the item rows touched; of all dense layers, "
        "twice; number of interactions as weight"
    )
    paper = "Zhu et al., 2022"
    entangled = "a delegate trains twice on its interactions and sends how many it has"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.calibrate < float("inf"):
            raise ValueError(f"calibrate must be 0 or more, got {self.calibrate}")

    def init(self, shape: Shape, stream: Stream) -> tuple[State, State]:
        model = self.clustered(shape, stream)
        head = flat(shared.copies(shared.dense(model), 1))
        model[HEADS] = head.repeat(self.clusters, 1)
        return {**model, HEARD: torch.zeros(shape.clients)}, {}

    def train(
        self, model: State, private: State, cohort: Cohort, round: Round
    ) -> Trained:
        samples = self.samples(cohort, round)
        received = shared.received(model, cohort.clients)
        common = self.fit(model, received, samples, round)
        start = {**received, **_heads(model, cohort.clients)}
        own = self.fit(model, start, samples, round)
        moved = {
            GLOBAL: shared.minus(common.dense, received),
            OWN: shared.minus(own.dense, start),
        }
        layers = {run + n: v for run, each in moved.items() for n, v in each.items()}
        change = shared.minus(own.users, start)
        sent = self.uploads(cohort, own.rows, layers, change)
        weighted = replace(sent, weight=cohort.counts.float())
        return Trained({}, {}, weighted, own.loss)

    def learn(self, model: State, uploads: Uploads, stream: Stream) -> State:
        assert uploads.weight is not None
        layers, weight = shared.dense(model), uploads.weight
        center = flat(shared.copies(layers, 1))
        change = _change(uploads, OWN, layers)
        mine = model[CLUSTER][uploads.clients]
        change = step.cluster_change(change, weight, mine, self.clusters)
        heads = step.calibrated(model[HEADS], change, center[0], self.calibrate)
        center = center + mean_change(_change(uploads, GLOBAL, layers), weight)
        after = self.fast_agg(model, uploads)
        for name, value in layers_of(center, layers).items():
            after[name] = value[0]
        after[HEARD] = model[HEARD].index_copy(0, uploads.clients, weight)
        cluster = self.parted(after, stream)
        share = step.shares(
            model[CLUSTER], cluster, _counts(after[HEARD]), self.clusters
        )
        return {**after, CLUSTER: cluster, HEADS: share.to(heads) @ heads}

    def score(self, model: State, private: State, cohort: Cohort) -> Tensor:
        rows = shared.own_rows(model, cohort.clients)
        heads = _heads(model, cohort.clients)
        return self.neural().scores({**shared.items(model), **heads}, rows)

    def bytes_down(self, model: State) -> int:
        """The shared model, one user row and one head."""
        head = model[HEADS][0]
        return super().bytes_down(model) + head.numel() * head.element_size()


def _heads(model: State, clients: Tensor) -> State:
    """Each client's head, as dense layers."""
    return layers_of(model[HEADS][model[CLUSTER][clients]], shared.dense(model))


def _change(uploads: Uploads, run: str, layers: State) -> Tensor:
    """What the dense layers of one run moved by, (delegates, numbers)."""
    return flat({name: uploads.dense[run + name] for name in layers})


def _counts(heard: Tensor) -> Tensor:
    """Interactions of each client, the mean of those heard of for all others."""
    known = heard > 0
    mean = heard[known].mean() if bool(known.any()) else heard.new_ones(())
    return torch.where(known, heard, mean)
