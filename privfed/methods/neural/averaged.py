"""Federated averaging of a neural recommender, user rows and all."""

from dataclasses import dataclass, replace
from typing import Literal, Self

from privfed.data.cohort import Cohort
from privfed.interfaces import SERVER, FromTotal, PerInteraction, State
from privfed.messages import Total, Uploads
from privfed.methods.neural.shared import SharedNeural
from privfed.surfaces import UserRow


@dataclass(frozen=True)
class Averaged(SharedNeural, FromTotal, PerInteraction):
    """A neural recommender whose server takes the mean of what clients send.

    ``user_rows`` says what becomes of a user row, which one client alone trains:
    ``averaged`` moves it by that client's share of the round, as federated averaging
    does with everything; ``own`` makes it what the client trained.
    """

    user_rows: Literal["averaged", "own"] = "averaged"

    def apply(self, model: State, total: Total) -> State:
        """Add the mean change; what a client did not send counts as zero."""
        if total.weight == 0:  # nobody in the round had any data
            return model
        share = 1.0 if self.user_rows == "own" else 1 / total.weight
        moved = {SERVER + name: share * sum_ for name, sum_ in total.users.items()}
        for name, summed in {**total.tables, **total.dense}.items():
            moved[name] = summed / total.weight
        return {n: v + moved[n] if n in moved else v for n, v in model.items()}

    def user_row(self) -> UserRow:
        return UserRow(self.user_table, self.user_rows == "own")

    def private_training(self) -> Self:
        """Negatives from the whole catalog: no draw depends on anybody's data."""
        return replace(self, negatives_exclude="nothing")


def weighed(sent: Uploads, cohort: Cohort, user_rows: str) -> Uploads:
    """The same with each client's interactions as its weight.

    Where the server adds user rows up as they are, they are sent over that weight.
    """
    weight = cohort.counts.float()
    if user_rows == "averaged":
        return replace(sent, weight=weight)
    users = {n: v / weight.clamp_min(1)[:, None] for n, v in sent.users.items()}
    return replace(sent, weight=weight, users=users)
