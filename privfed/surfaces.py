"""What is public of a method beyond its interface: what attacks may ask of it.

A method says these of itself. An algorithm is no secret, and neither is what follows
from it about the uploads: which layer reads a user's vector, what a row carries beside
its data, how local training can be repeated.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

from torch import Tensor

from privfed.data.world import Shape
from privfed.devices.recipe import Recipe
from privfed.interfaces import Method, State


@dataclass(frozen=True)
class Pass:
    """How a client moves its vector x and the rows y of items that it rated.

    With e = rating - <x, y> the vector moves by rate * factor * (the sum of e y, or
    its ``mean`` over the client's samples, less decay * x), and an upload's row is
    scale * factor * (e x - decay * y), ``scale`` being the upload's: all ratings at
    once, each with the error found before (``moves="all"``), or one after the other in
    the order of the device's data (``each``). ``reads`` is the vector in the row's
    change: as the move leaves it (``new``) or as it was (``old``). Of several ``steps``
    each reads rows as the one before left them.
    """

    rate: float
    decay: float
    factor: float = 2.0
    moves: Literal["each", "all"] = "all"
    reads: Literal["new", "old"] = "old"
    table: str = "items"
    vector: str = "users"
    mean: bool = False
    steps: int = 1
    optimizer: Literal["sgd", "adam"] = "sgd"


class InnerProduct(Method):
    """A method whose ratings are inner products, trained on squared error."""

    @abstractmethod
    def pass_(self, round: int) -> Pass:
        """The device's local pass of a round."""


@dataclass(frozen=True)
class UserLayer:
    """Where a shared layer reads the private user vector: columns from ``first``."""

    weight: str  # (out, in)
    bias: str  # (out,)
    vector: str  # the private tensor
    first: int
    width: int
    rate: float = 1.0  # the vector's learning rate over the layer's


class ReadsUser(Method):
    """A method with a shared first layer that reads a private user vector."""

    @abstractmethod
    def user_layer(self) -> UserLayer:
        """That layer."""


class AlongUser(Method):
    """A method whose item rows change by a number times one private vector.

    Positives change along the vector, negatives against it.
    """

    @abstractmethod
    def user_direction(self) -> str:
        """That private tensor, (clients, ..., width)."""


class OneStep(AlongUser):
    """A method of inner products whose device takes one step on a loss of groups.

    A group is a positive and the negatives drawn for it.
    """

    @abstractmethod
    def group_loss(self, score: Tensor) -> Tensor:
        """Each client's loss, (clients,), of (clients, groups, 1 + negatives) scores.

        The positive's comes first.
        """


@dataclass(frozen=True)
class UserRow:
    """A row of a table of users in the model, which its client changes itself.

    ``over_weight``: the change is sent divided by the client's weight.
    """

    table: str
    over_weight: bool = False


class SendsUser(Method):
    """A method whose clients send their own row of a table that the server keeps."""

    @abstractmethod
    def user_row(self) -> UserRow:
        """That table."""


@dataclass(frozen=True)
class Known:
    """A part of every item row that is sent: ``factor`` times a row of the model.

    Of the tensor ``of``, or of its signs. Without a factor it is the client's own.
    """

    of: str
    signs: bool = False
    factor: float | None = None


class Regularized(Method):
    """A method whose uploaded item rows also carry what the received model tells."""

    @abstractmethod
    def known_parts(self) -> Mapping[str, Sequence[Known]]:
        """What is known of an upload's rows, by table."""

    def longest_row(self) -> float:
        """The length that a row of an upload is cut to; infinity where it is not."""
        return inf


@dataclass(frozen=True)
class Reads:
    """A shared layer that reads a public vector of each item, from column ``first``.

    The vector is the sum of rows of the model's tensors ``tables``, or the item's row
    of the features ``feature``.
    """

    layer: str  # its weight is "<layer>.weight", (out, in)
    tables: tuple[str, ...] = ()
    feature: str = ""
    first: int = 0


class ReadsItems(Method):
    """A method with shared layers whose input is a public function of the item."""

    @abstractmethod
    def item_layers(self, shape: Shape) -> Sequence[Reads]:
        """Those layers; a table that is trained reaches the loss through them alone."""


class WholeGradient(Method):
    """A method that sends c_i (p_i - <x, y_i>) x for every item i: FCF's upload.

    c = 1 and p = 0 for an item that the client did not take, else c >= 1 and p = 1.
    """

    @abstractmethod
    def whole_table(self) -> str:
        """The item table y."""


class Generated(Method):
    """A method whose server makes each client's model, and so can use it."""

    @abstractmethod
    def slopes(
        self, model: State, clients: Tensor, sender: Tensor, item: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Predicted ratings (pairs,), and their derivatives by the item's row.

        ``model`` is all that the server holds, ``sender`` a position in ``clients``.
        The derivatives are (pairs, width).
        """


class Replayable(Method):
    """A method whose local training anybody who knows it can repeat."""

    @abstractmethod
    def recipe(self, shape: Shape, round: int) -> Recipe:
        """What a device does in a round."""
