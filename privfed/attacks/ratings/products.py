"""What closed forms have in common that read ratings off inner products."""

from dataclasses import dataclass

from privfed.adversary import Attack, Prior
from privfed.attacks.ratings.real import claims
from privfed.checks import positive
from privfed.guesses import Ratings
from privfed.interfaces import Method, State
from privfed.surfaces import InnerProduct
from privfed.views import ServerView, UploadsView, View

NO_PRODUCT = "reads ratings that are inner products of a private and an item's vector"
UNPREPARED = "an attack that reads what is public must be prepared"
ADAM = "Adam's steps on the device do not tell how large an error is"


def misfit(method: Method) -> str:
    """Why rows of a method's uploads are not errors times a user vector."""
    if not isinstance(method, InnerProduct):
        return NO_PRODUCT
    return ADAM if method.pass_(0).optimizer == "adam" else ""


@dataclass(frozen=True)
class OfProducts(Attack):
    """Rating recovery from uploads whose rows are errors times a user vector.

    Where a client sends every row, only those that stand ``deviations`` out of the
    noise are taken for rated.
    """

    deviations: float = 3.0

    sees = (UploadsView, ServerView)
    tasks = ("rating",)
    recovers = "ratings"

    def __post_init__(self) -> None:
        positive(self, "deviations")

    def misfit(self, method: Method) -> str:
        return misfit(method)

    def observe(self, memory: State, view: View) -> State:
        raise TypeError(UNPREPARED)

    def guess(self, memory: State, prior: Prior) -> Ratings:
        return claims(memory, prior)
