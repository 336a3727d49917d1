"""What a client must have had for its local training to give what it uploaded.

Unknown are its private tensors and its labels; an adversary repeats local training on
a guess of both, and moves the guess until simulated and real uploads agree.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Literal

import torch
from torch import Tensor

from privfed.adversary import Prior
from privfed.attacks.reading.descent import Found, Objective
from privfed.attacks.reading.records import Sent, Victims
from privfed.attacks.reading.vector_readers import inverted
from privfed.data.world import Shape
from privfed.interfaces import START, Method, State
from privfed.replay import Moments, Replayed, repeat
from privfed.surfaces import InnerProduct, Pass, ReadsUser, Replayable

Distance = Literal["l2", "cosine", "rows"]
Train = Callable[[Sent, State, Tensor], Replayed]
_TINY = 1e-30
_SOLVED = 1e-6  # of an upload left open
_LITTLE = 1e-3


def trainer(method: Method, shape: Shape, round: int) -> Train:
    """A method's local training in a round: upload, own tensors, labels to changes."""
    if isinstance(method, Replayable):
        recipe = method.recipe(shape, round)

        def train(sent: Sent, own: State, label: Tensor) -> Replayed:
            rows = {name: sent.rows[name] for name in recipe.tables}
            shared = {name: sent.shared[name] for name in recipe.shared}
            return repeat(recipe, rows, shared, own, label, sent.real)

        return train
    assert isinstance(method, InnerProduct)
    return partial(passed, method.pass_(round))


def passed(of: Pass, sent: Sent, own: State, label: Tensor) -> Replayed:
    """A device's passes of inner products on squared error.

    Where ratings move the vector one by one, their order is not sent; they are taken
    at once here.
    """
    x, start, real = own[of.vector], sent.rows[of.table], sent.real
    scale = sent.scale[of.table][:, None, None]
    count = real.sum(1, keepdim=True).clamp_min(1) if of.mean else 1
    adam = Moments() if of.optimizer == "adam" else None
    y = start
    for _ in range(of.steps):
        error = (label - (x[:, None] * y).sum(2)) * real
        pull = (error[..., None] * y).sum(1) / count
        way = {"x": of.factor * (pull - of.decay * x)}
        after = x + of.rate * (adam.moves(way) if adam else way)["x"]
        used = after if of.reads == "new" else x
        change = error[..., None] * used[:, None] - of.decay * y * real[..., None]
        moves = {"y": of.factor * change}
        y = y + (of.rate * adam.moves(moves)["y"] if adam else scale * moves["y"])
        x = after
    return Replayed({of.table: y - start}, {}, {of.vector: x})


@dataclass(frozen=True, eq=False)
class Unknown:
    """How a victim's unknowns lie in one row of numbers: own tensors, then labels."""

    own: Mapping[str, tuple[int, ...]]
    samples: int

    def parts(self, point: Tensor) -> tuple[State, Tensor]:
        """Own tensors (victims, ...) and labels (victims, samples)."""
        sizes = [prod(size) for size in self.own.values()]
        *pieces, label = torch.split(point, [*sizes, self.samples], 1)
        own = {
            name: piece.reshape(len(point), *size)
            for (name, size), piece in zip(self.own.items(), pieces, strict=True)
        }
        return own, label

    def joined(self, own: State, label: Tensor) -> Tensor:
        """All of it as one row of numbers."""
        return torch.cat([*(own[name].flatten(1) for name in self.own), label], 1)


def likely_own(prior: Prior, who: Victims, number: int) -> State:
    """Private tensors as the public algorithm starts them, by draws of one's own.

    A private item table is what its public start is, as far as that was seen. The
    first time, a vector that a shared layer reads is what that layer's change tells.
    """
    drawn = prior.method.init(prior.shape, prior.stream.of("own", number))[1]
    own: dict[str, Tensor] = {}
    for name in _own_names(prior.method, prior.shape):
        start = who.uploads[0].rows.get(name + START)
        own[name] = drawn[name][who.clients] if start is None else start
    if number == 0 and isinstance(prior.method, ReadsUser):
        own |= _read(prior.method, who.uploads[0])
    return own


def _read(method: ReadsUser, sent: Sent) -> State:
    """The user vector, off the change of the layer that reads it."""
    layer = method.user_layer()
    if layer.weight not in sent.shared_moved or layer.bias not in sent.shared_moved:
        return {}
    columns = slice(layer.first, layer.first + layer.width)
    change = sent.shared_moved[layer.weight][:, :, columns]
    vector, _ = inverted(change, sent.shared_moved[layer.bias])
    return {layer.vector: vector}


def _own_names(method: Method, shape: Shape) -> list[str]:
    if isinstance(method, Replayable):
        return list(method.recipe(shape, 0).own)
    assert isinstance(method, InnerProduct)
    return [method.pass_(0).vector]


@dataclass(frozen=True, eq=False)
class Mismatch:
    """How far the simulated uploads of some victims are from the real ones.

    ``label`` makes labels of the unknown numbers that stand for them. A mean label away
    from ``share``, where that is known, costs a little: a private vector turned round
    with all labels turned round explains nearly as well.
    """

    victims: Victims
    trainers: tuple[Train, ...]  # one for each upload
    unknown: Unknown
    label: Callable[[Tensor], Tensor]
    distance: Distance
    share: Tensor | None = None  # (victims,)

    @classmethod
    def of(
        cls,
        prior: Prior,
        who: Victims,
        own: State,
        label: Callable[[Tensor], Tensor],
        distance: Distance,
        share: Tensor | None = None,
    ) -> "Mismatch":
        trainers = tuple(
            trainer(prior.method, prior.shape, int(sent.round[0]))
            for sent in who.uploads
        )
        sizes = {name: tuple(value.shape[1:]) for name, value in own.items()}
        unknown = Unknown(sizes, who.item.shape[1])
        return cls(who, trainers, unknown, label, distance, share)

    def __call__(self, point: Tensor, at: Tensor) -> Tensor:
        own, numbers = self.unknown.parts(point)
        label = self.label(numbers)
        total = torch.zeros_like(point[:, 0])
        for sent, train in zip(self.victims.uploads, self.trainers, strict=True):
            mine = sent.of(at)
            made = train(mine, own, label)
            own = made.own
            total = total + far(made, mine, self.distance)
        return total / len(self.trainers) + self._unlikely(label, at)

    def _unlikely(self, label: Tensor, at: Tensor) -> Tensor | float:
        if self.share is None:
            return 0.0
        real = self.victims.real[at]
        mean = (label * real).sum(1) / real.sum(1).clamp_min(1)
        return _LITTLE * (mean / self.share[at] - 1).square()


def best_of(
    prior: Prior,
    who: Victims,
    tries: int,
    start: Tensor,
    label: Callable[[Tensor], Tensor],
    distance: Distance,
    minimize: Callable[[Objective, Tensor], Found],
    share: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Numbers that stand for labels, (victims, samples), and what they leave open.

    Of as many starts of the private tensors the best; a victim of whom nothing to speak
    of is left open is not tried again. Labels begin at ``start``, (victims, samples).
    """
    numbers = start.clone()
    value = torch.full_like(start[:, 0], torch.inf)
    for number in range(tries):
        at = (value > _SOLVED).nonzero()[:, 0]
        if not len(at):
            break
        some = who.of(at, who.item.shape[1])
        own = likely_own(prior, some, number)
        likely = None if share is None else share[at]
        mismatch = Mismatch.of(prior, some, own, label, distance, likely)
        found = minimize(mismatch, mismatch.unknown.joined(own, start[at]))
        better = found.value < value[at]
        value[at[better]] = found.value[better]
        numbers[at[better]] = mismatch.unknown.parts(found.point)[1][better]
    return numbers, value


def far(made: Replayed, sent: Sent, distance: Distance) -> Tensor:
    """Mean over the tensors sent of how far each is from its simulation, (victims,).

    ``l2``: squared error over the tensor's squared length; ``cosine``: 1 - cosine;
    ``rows``: mean length of the rows' errors, over the rows' mean length.
    """
    pairs = [(made.rows[n], sent.rows_moved[n]) for n in sent.rows_moved]
    if distance != "rows":
        pairs += [(made.shared[n], sent.shared_moved[n]) for n in sent.shared_moved]
    found = [_FAR[distance](one, other) for one, other in pairs]
    return torch.stack(found).mean(0)


def _l2(one: Tensor, other: Tensor) -> Tensor:
    whole = other.flatten(1).square().sum(1).clamp_min(_TINY)
    return (one - other).flatten(1).square().sum(1) / whole


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    one, other = one.flatten(1), other.flatten(1)
    lengths = (one.square().sum(1) + _TINY) * (other.square().sum(1) + _TINY)
    return 1 - (one * other).sum(1) / lengths.sqrt()


def _rows(one: Tensor, other: Tensor) -> Tensor:
    whole = (other.square().sum(2) + _TINY).sqrt().sum(1)
    return ((one - other).square().sum(2) + _TINY).sqrt().sum(1) / whole


_FAR: Mapping[Distance, Callable[[Tensor, Tensor], Tensor]] = {
    "l2": _l2,
    "cosine": _cosine,
    "rows": _rows,
}
