"""Hold item rows near what was received: IMIA's own defense.

Yuan et al., Interaction-level Membership Inference Attack, WWW 2023: every local step's
loss has mu |V - V_received|^2 added, summed over the item table.
"""

from dataclasses import dataclass

from torch import Tensor

from privfed.accounting.guarantee import Guarantee, not_private
from privfed.checks import not_negative
from privfed.devices.penalty import Own, Penalty
from privfed.interfaces import Defense, Turn


@dataclass(frozen=True)
class ImiaRegularizer(Defense):
    """Pull item rows back to what was received, with strength ``mu``, at every step.

    The term stands beside the mean loss of a step, so what a strength does depends on
    the batch and not on the learning rate: the rows settle at gradient / (2 mu) from
    where they began. Steps on the term are implicit, which no learning rate lets
    overshoot. Needs a method of several local steps.
    """

    mu: float = 0.1

    hides = "how far each row moved, not which way"
    does_not_hide = (
        "item ids; the direction of a row, which tells positives from negatives"
    )
    trust = "nobody, and nothing is promised: the server sees the rows"
    cost = "slower learning; next to no time"
    paper = "Yuan et al. (IMIA), WWW 2023"

    def __post_init__(self) -> None:
        not_negative(self, "mu")

    def penalty(self, turn: Turn) -> Penalty | None:
        return Anchor(self.mu) if self.mu else None

    def guarantee(self) -> Guarantee:
        return not_private(
            trust="the server sees every row as it was trained",
            covers="how far item rows move in local training",
            caveats=(
                "not DP: nothing random is added, and item ids are exact",
                "its authors measured it against their own attack alone; sign_pc reads "
                "directions, which it leaves",
                "with a single local step it scales an upload and does nothing else",
            ),
        )


@dataclass(frozen=True)
class Anchor(Penalty):
    """mu |V - V_received|^2 over a client's item rows."""

    mu: float

    anchored = True

    def settle(self, own: Own, rate: float) -> Tensor:
        """Backward Euler: v = v' - rate 2 mu (v - received), solved for v."""
        moved = (own.rows - own.received) / (1 + 2 * self.mu * rate)
        return own.received + moved
