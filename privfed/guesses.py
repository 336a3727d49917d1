"""What an attack may claim. One attack makes one kind of claim."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Guess:
    """A claim about some clients."""

    clients: Tensor  # (seen,) ascending


@dataclass(frozen=True)
class Items(Guess):
    """Which items each client interacted with.

    ``score`` ranks a client's items, higher is "more likely"; ``chosen`` is the
    attack's decision.
    """

    score: Tensor  # (seen, items)
    chosen: Tensor  # (seen, items) bool


@dataclass(frozen=True)
class Interactions(Guess):
    """How likely each candidate is an interaction; scores compare across clients."""

    sender: Tensor  # (pairs,) position in clients
    item: Tensor  # (pairs,)
    score: Tensor  # (pairs,)


@dataclass(frozen=True)
class Ratings(Guess):
    """What clients rated, and how; of a pair left out nothing is claimed."""

    sender: Tensor  # (pairs,) position in clients
    item: Tensor  # (pairs,)
    rating: Tensor  # (pairs,)


@dataclass(frozen=True)
class Vectors(Guess):
    """The private tensor ``name`` of each client, flat."""

    name: str
    vector: Tensor  # (seen, width)


@dataclass(frozen=True)
class Users(Guess):
    """How likely each candidate took part in training."""

    score: Tensor  # (seen,)


@dataclass(frozen=True)
class Attributes(Guess):
    """How likely each value of an attribute is, by attribute."""

    scores: Mapping[str, Tensor]  # (seen, values)


@dataclass(frozen=True)
class Links(Guess):
    """How likely two uploads are one client's.

    ``clients`` sent the uploads of one round, ``others`` those of a later one. An
    attack names both by pseudonym.
    """

    others: Tensor  # (later,)
    score: Tensor  # (seen, later)
    rounds: tuple[int, int]
