"""How claims compare with the truth: one module for each kind of claim."""

from importlib import import_module

from privfed.adversary import NotApplicable, Prior
from privfed.guesses import (
    Attributes,
    Guess,
    Interactions,
    Items,
    Links,
    Ratings,
    Users,
    Vectors,
)
from privfed.metrics.leakage.judged import Judged, Truth

_JUDGES: dict[type[Guess], str] = {
    Items: "items",
    Interactions: "interactions",
    Ratings: "ratings",
    Vectors: "vectors",
    Users: "users",
    Attributes: "attributes",
    Links: "links",
}


def judge(guess: Guess, truth: Truth, prior: Prior) -> Judged | NotApplicable:
    """Compare a claim with the truth, and with what the prior alone would claim.

    Raises ArithmeticError where a score is not finite.
    """
    module = import_module(f"{__name__}.{_JUDGES[type(guess)]}")
    judged: Judged | NotApplicable = module.judge(guess, truth, prior)
    return judged
