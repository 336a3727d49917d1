"""FedAvg on a neural recommender: the plainest baseline."""

from dataclasses import dataclass

from torch import Tensor

from privfed.data.cohort import Cohort
from privfed.data.world import Shape
from privfed.interfaces import Round, State, Trained
from privfed.methods.neural import shared
from privfed.methods.neural.averaged import Averaged, weighed
from privfed.seeds import Stream


@dataclass(frozen=True)
class NeuralAvg(Averaged):
    """Federated averaging of a whole GMF, MLP or NeuMF, weighted by interactions."""

    keeps = "nothing"
    sends = (
        "change of its user row, of the item rows touched and of all dense layers; "
        "number of interactions as weight"
    )
    paper = "McMahan et al., AISTATS 2017; He et al., WWW 2017"

    def init(self, shape: Shape, stream: Stream) -> tuple[State, State]:
        return self.first(shape, stream), {}

    def train(
        self, model: State, private: State, cohort: Cohort, round: Round
    ) -> Trained:
        start = shared.received(model, cohort.clients)
        fitted = self.fit(model, start, self.samples(cohort, round), round)
        sent = self.sent(cohort, fitted, start)
        if round.privacy is None:  # how many interactions there are is private
            sent = weighed(sent, cohort, self.user_rows)
        return Trained({}, {}, sent, fitted.loss)

    def score(self, model: State, private: State, cohort: Cohort) -> Tensor:
        return self.shared_scores(model, cohort)
