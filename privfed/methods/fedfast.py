"""FedFast: clusters of users, and aggregation that does not dilute.

Muhammad et al., FedFast: Going Beyond Average for Faster Training of Federated
Recommender Systems, KDD 2020, on the neural recommenders of Cali3F.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from privfed.data.cohort import Cohort
from privfed.data.world import Shape
from privfed.devices.dpsgd import Entangled
from privfed.interfaces import Round, State, Trained
from privfed.messages import Uploads
from privfed.methods.neural import shared
from privfed.methods.neural.clustered import (
    CLUSTER,
    Clustered,
    flat,
    layers_of,
    mean_change,
)
from privfed.seeds import Stream


@dataclass(frozen=True)
class FedFast(Clustered, Entangled):
    """One model for all, trained by delegates of clusters of alike users."""

    keeps = "nothing"
    sends = (
        "change of its user row, of the item rows touched and of all dense layers; "
        "number of interactions as weight"
    )
    paper = "Muhammad et al., KDD 2020"
    entangled = "its server weighs delegates by how many interactions they have"

    def init(self, shape: Shape, stream: Stream) -> tuple[State, State]:
        return self.clustered(shape, stream), {}

    def train(
        self, model: State, private: State, cohort: Cohort, round: Round
    ) -> Trained:
        start = shared.received(model, cohort.clients)
        fitted = self.fit(model, start, self.samples(cohort, round), round)
        sent = self.sent(cohort, fitted, start)
        weighted = replace(sent, weight=cohort.counts.float())
        return Trained({}, {}, weighted, fitted.loss)

    def learn(self, model: State, uploads: Uploads, stream: Stream) -> State:
        assert uploads.weight is not None
        layers = shared.dense(model)
        change = flat({name: uploads.dense[name] for name in layers})
        after = self.fast_agg(model, uploads)
        mean = mean_change(change, uploads.weight)
        for name, moved in layers_of(mean[None], layers).items():
            after[name] = layers[name] + moved[0]
        return {**after, CLUSTER: self.parted(after, stream)}

    def score(self, model: State, private: State, cohort: Cohort) -> Tensor:
        return self.shared_scores(model, cohort)
