"""Uploads of matrix factorization as what they are: errors times one user vector.

With e = rating - <x, y> an item's row of the upload is e x, once the regulariser, which
the server knows, is taken out. All rows of a client point along x, so the upload is a
matrix of rank one: its axis is x up to length and sign, and with s = |x| each rating is

    rating(s) = first / s + second * s

where ``first`` and ``second`` are known: one number hides all ratings of a client.
Chai et al., IEEE Intelligent Systems 2020, show that two uploads are enough; here is
the same in closed form. All of it is in float64.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.linalg import vector_norm

from privfed.messages import Rows
from privfed.surfaces import Pass

_TINY = 1e-300
_ROUNDING = 1e-7  # a direction that turned by less tells how numbers were rounded


@dataclass(frozen=True, eq=False)
class Told:
    """One round's rows of some clients, each an error times a user vector.

    ``error`` is that product, ``item_row`` what the client had received. ``noise`` is
    the deviation of each number, seen off the axis.
    """

    clients: int
    sender: Tensor  # (rows,) position of the client
    item: Tensor  # (rows,)
    error: Tensor  # (rows, width)
    item_row: Tensor  # (rows, width)
    axis: Tensor  # (clients, width) unit vectors
    noise: Tensor  # (clients,)
    clear: Tensor  # (clients,) bool: more than noise has an axis

    @property
    def along(self) -> Tensor:
        """Each row's length along its client's axis, (rows,)."""
        return (self.error * self.axis[self.sender]).sum(1)

    def sum(self, value: Tensor) -> Tensor:
        """Sums of (rows, ...) by client, (clients, ...)."""
        return by_sender(value, self.sender, self.clients)

    def only(self, keep: Tensor) -> "Told":
        """Some of the rows."""
        return replace(
            self,
            sender=self.sender[keep],
            item=self.item[keep],
            error=self.error[keep],
            item_row=self.item_row[keep],
        )


@dataclass(frozen=True, eq=False)
class Lines:
    """A rating for each row as a function of s: ``first / s + second * s``."""

    first: Tensor  # (rows,)
    second: Tensor  # (rows,)

    def at(self, s: Tensor) -> Tensor:
        """The ratings where the vectors are as long as ``s``, (rows,)."""
        return self.first / s + self.second * s


def by_sender(value: Tensor, sender: Tensor, clients: int) -> Tensor:
    """Sums of (rows, ...) by client, (clients, ...)."""
    zeros = value.new_zeros(clients, *value.shape[1:])
    return zeros.index_add(0, sender, value)


def read(
    rows: Rows, clients: int, table: Tensor, how: Pass, scale: float, deviations: float
) -> Told:
    """What an upload tells: rows without the regulariser, their axis, their noise.

    A row of zeros is of an item that the client did not rate. Where a client sends a
    row for every item all the same, noise hides which it rated: those rows are kept
    that stand ``deviations`` out of the noise along the axis.
    """
    moved = rows.value.ne(0).any(1)
    sender, item = rows.sender[moved], rows.item[moved]
    known = table[item].double()
    size = scale * how.factor * how.steps
    error = rows.value[moved].double() / size + known * how.decay
    axis = principal(error, sender, clients)
    told = Told(clients, sender, item, error, known, axis, *_noise(error, sender, axis))
    sent = by_sender(torch.ones_like(sender), sender, clients)
    every = sent == len(table)
    if not bool(every.any()):
        return told
    width = error.shape[1]
    level = told.noise * (1 + (width / sent.clamp_min(1)).sqrt()) * deviations
    stands = told.along.abs() > level[sender]
    return told.only(stands | ~every[sender])


def principal(rows: Tensor, sender: Tensor, clients: int, power: int = 50) -> Tensor:
    """Each client's first right singular vector, (clients, width); 0 without rows.

    Power iteration from each client's longest row, all clients at once: rows of rank
    one need a single step.
    """
    energy = rows.square().sum(1)
    longest = energy.new_zeros(clients).scatter_reduce(0, sender, energy, "amax")
    at = (energy == longest[sender]).nonzero()[:, 0].flip(0)  # of equals, the first
    start = rows.new_zeros(clients, rows.shape[1])
    start[sender[at]] = rows[at]
    axis = unit(start)
    moving = torch.ones_like(longest, dtype=torch.bool)[:, None]
    for _ in range(power):
        along = (rows * axis[sender]).sum(1, keepdim=True)
        ahead = unit(by_sender(rows * along, sender, clients))
        ahead = torch.where(moving, ahead, axis)  # a client stops by itself
        moving = (ahead - axis).abs().amax(1, keepdim=True) > 1e-14
        axis = ahead
        if not bool(moving.any()):
            break
    return axis


def _noise(error: Tensor, sender: Tensor, axis: Tensor) -> tuple[Tensor, Tensor]:
    """Deviation of a number off the axis, and whether the axis is more than noise.

    Noise alone has a first singular value of about sigma (sqrt(rows) + sqrt(width)).
    """
    clients, width = axis.shape
    along = (error * axis[sender]).sum(1, keepdim=True)
    noise = deviation(error - along * axis[sender], sender, clients)
    rows = by_sender(torch.ones_like(along[:, 0]), sender, clients)
    edge = noise * (rows.sqrt() + width**0.5)
    loud = by_sender(along[:, 0].square(), sender, clients)
    return noise, loud > 1.5 * edge.square()


def deviation(rest: Tensor, sender: Tensor, clients: int) -> Tensor:
    """Of each number in what is left of rows once their axis is out, (clients,)."""
    rows = by_sender(torch.ones_like(rest[:, 0]), sender, clients)
    free = ((rows - 1) * max(1, rest.shape[1] - 1)).clamp_min(1)
    return (by_sender(rest.square().sum(1), sender, clients) / free).sqrt()


def upright(rating: Tensor, sender: Tensor, clients: int) -> Tensor:
    """Ratings with the sign that makes a client's mean positive."""
    down = by_sender(rating.nan_to_num(), sender, clients) < 0
    return torch.where(down[sender], -rating, rating)


def unit(x: Tensor) -> Tensor:
    """The same directions with length 1; 0 stays 0."""
    length: Tensor = vector_norm(x, dim=-1, keepdim=True)
    return x / length.clamp_min(_TINY)


def pull(told: Told, how: Pass) -> Tensor:
    """s times what the ratings move the vector by, (clients, width).

    That is rate * factor * sum(e y), or of their mean.
    """
    moved = told.sum(told.along[:, None] * told.item_row)
    if how.mean:
        rows = told.sum(torch.ones_like(told.along))
        moved = moved / rows.clamp_min(1)[:, None]
    return moved * (how.rate * how.factor * how.steps)


def kept(how: Pass) -> float:
    """What weight decay leaves of the vector in one move."""
    return 1 - how.rate * how.factor * how.decay * how.steps


def lines(told: Told, how: Pass) -> Lines:
    """Ratings of a client that moves its vector once, on all of its ratings.

    Rows that read the moved vector are put back to the one that made the errors.
    """
    second = (told.axis[told.sender] * told.item_row).sum(1)
    if how.reads == "old":
        return Lines(told.along, second)
    back = (pull(told, how)[told.sender] * told.item_row).sum(1) / kept(how)
    return Lines(told.along - back, second / kept(how))


def length(off: Tensor, moved: Tensor, onto: Tensor) -> tuple[Tensor, Tensor]:
    """(s, error) of vectors s (off + moved / s^2) that are known to lie along ``onto``.

    All (clients, width): of what is at right angles to ``onto`` nothing is left, so
    s^2 off = -moved there, in least squares. s is NaN where the two point the same way.
    ``error`` is the standard error of s^2, relative to it: how far the two are from
    lying on one line; infinite where nothing turned.
    """
    least = [_ROUNDING**2 * part.square().sum(1) for part in (off, moved)]
    off = off - onto * (off * onto).sum(1, keepdim=True)
    moved = moved - onto * (moved * onto).sum(1, keepdim=True)
    turn, far = off.square().sum(1), moved.square().sum(1)
    square = -(off * moved).sum(1) / turn.clamp_min(_TINY)
    shared = (off * moved).sum(1).square() / (turn * far).clamp_min(_TINY)
    free = max(1, off.shape[1] - 2)
    error = ((1 / shared - 1).clamp_min(0) / free).sqrt()
    told = (turn > least[0]) & (far > least[1])
    error = torch.where(told, error, torch.inf)
    return torch.where(square > 0, square, torch.nan).sqrt(), error
