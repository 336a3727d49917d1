"""A method's prediction as a function that autograd follows.

Whoever knows the public algorithm can write down how an item's rows, the shared layers
and a user's private tensors make a score; here that is read off what the method says of
itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from privfed.data.world import Shape
from privfed.devices.recipe import EACH, Values
from privfed.errors import SettingsError
from privfed.interfaces import START, Method, State
from privfed.seeds import Stream
from privfed.surfaces import AlongUser, InnerProduct, Replayable

_ITEMS = "items"


@dataclass(frozen=True, eq=False)
class Scorer:
    """How users score items, in the method's own units: logits, or ratings.

    ``each(rows, shared, own)`` is (users, samples) from the samples' rows by table
    (users, samples, width), every user's copy of the shared tensors and its own
    tensors, (users, ...) all. A private item table, whose size begins with ``EACH``,
    is given as the samples' rows.
    """

    tables: Sequence[str]  # item tables of the model
    shared: Sequence[str]  # dense tensors of the model
    own: Mapping[str, tuple[int, ...]]  # private tensors: size of one user's
    each: Callable[[Values, Values, Values], Tensor]
    rates: Mapping[str, float] = field(default_factory=dict)  # learning rates, if told

    def predict(self, rows: Values, shared: Values, own: Values) -> Tensor:
        """The same with one model for all users: ``shared`` as the model has it."""
        users = len(next(iter(rows.values())))
        return self.each(rows, copies(self.shared, shared, users), own)

    def rows(self, model: State, item: Tensor) -> dict[str, Tensor]:
        """The model's rows of items (users, samples), by table."""
        return {name: model[name][item] for name in self.tables}

    def samples(self, model: State, own: State, item: Tensor) -> dict[str, Tensor]:
        """Own tensors as ``predict`` takes them: private tables at (users, samples)."""
        user = torch.arange(len(item), device=item.device)[:, None]
        return {
            name: own[name][user, item] + model[name + START][item]
            if size[0] == EACH
            else own[name]
            for name, size in self.own.items()
        }


def copies(names: Sequence[str], model: State, users: int) -> dict[str, Tensor]:
    """One copy of tensors of the model for each user."""
    return {name: model[name].expand(users, *model[name].shape) for name in names}


def can_score(method: Method) -> bool:
    """Whether a method says enough of itself to have a scorer."""
    return isinstance(method, Replayable | InnerProduct | AlongUser)


def scorer(method: Method, shape: Shape) -> Scorer:
    """The method's scorer; SettingsError where it says too little of itself."""
    if isinstance(method, Replayable):
        recipe = method.recipe(shape, 0)
        rates = {name: rate for phase in recipe.phases for name, rate in phase.items()}
        return Scorer(recipe.tables, recipe.shared, recipe.own, recipe.predict, rates)
    if isinstance(method, InnerProduct):
        moves = method.pass_(0)
        rates = dict.fromkeys((moves.table, moves.vector), moves.rate)
        return _inner_product(method, shape, moves.table, moves.vector, rates)
    if isinstance(method, AlongUser):
        return _inner_product(method, shape, _ITEMS, method.user_direction(), {})
    raise SettingsError(
        f"{type(method).__name__} does not say how it scores an item in terms that can "
        "be differentiated; take bpr, fedncf or another method"
    )


def _inner_product(
    method: Method, shape: Shape, table: str, vector: str, rates: Mapping[str, float]
) -> Scorer:
    one = replace(shape, clients=1, items=1)
    _, private = method.init(one, Stream(0))

    def each(rows: Values, _: Values, own: Values) -> Tensor:
        return (rows[table] * own[vector][:, None]).sum(2)

    size = tuple(private[vector].shape[1:])
    return Scorer([table], [], {vector: size}, each, rates)
