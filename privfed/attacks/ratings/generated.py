"""Exact ratings where the server makes each client's model: it divides.

MetaMF's server knows the model that it made for a client, so that of an uploaded row
gradient g = (2/b) (p - r) J it knows the prediction p and its derivative J by the row.
What is left is r = p - (b/2) <g, J> / <J, J>, with b the ratings in the client's mean.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from privfed.adversary import Attack, Prior
from privfed.attacks.reading.grid import Grid
from privfed.checks import not_negative, positive
from privfed.data.world import Shape
from privfed.guesses import Ratings
from privfed.interfaces import Method, State
from privfed.messages import Uploads
from privfed.surfaces import Generated
from privfed.views import ServerView, UploadsView, View


@dataclass(frozen=True)
class Division(Attack):
    """Ratings from the rows of one upload, by one division each.

    How many ratings an upload is the mean of is the number of rows sent, or up to
    ``more`` above it (rows whose gradient vanished): the first number for which all of
    its ratings lie on the scale's grid within ``near`` of a step. Nothing is claimed of
    a row that its rating cannot move. Estimates of several rounds are averaged.
    """

    more: int = 8
    near: float = 0.01

    sees = (UploadsView, ServerView)
    tasks = ("rating",)
    recovers = "ratings"
    paper = "this project, on Lin et al., SIGIR 2020"

    def __post_init__(self) -> None:
        not_negative(self, "more")
        positive(self, "near")

    def misfit(self, method: Method) -> str:
        if isinstance(method, Generated):
            return ""
        return "reads uploads of methods whose server makes each client's model"

    def prepare(self, prior: Prior) -> Attack:
        method = prior.method
        assert isinstance(method, Generated)
        return ReadyDivision(self.more, self.near, method, prior.shape)

    def start(self, prior: Prior) -> State:
        pair = torch.zeros(0, dtype=torch.int64)
        sums = (torch.zeros(0, dtype=torch.float64) for _ in range(2))
        return {"pair": pair, **dict(zip(("sum", "count"), sums, strict=True))}

    def observe(self, memory: State, view: View) -> State:
        raise TypeError("an attack that reads the server's model must be prepared")

    def guess(self, memory: State, prior: Prior) -> Ratings:
        client = memory["pair"] // prior.items
        clients, sender = torch.unique(client, return_inverse=True)
        rating = memory["sum"] / memory["count"]
        if prior.shape.scale is not None:
            rating = rating.clamp(*prior.shape.scale)
        return Ratings(clients, sender, memory["pair"] % prior.items, rating)


@dataclass(frozen=True)
class ReadyDivision(Division):
    """Division that knows the method; made by ``Division.prepare``.

    ``model`` is the server's in the round that is going on. It is by far the largest
    thing, and shown anew in every round: no part of the memory.
    """

    method: Generated | None = None
    shape: Shape | None = None
    model: dict[str, Tensor] = field(default_factory=dict, compare=False, repr=False)

    def observe(self, memory: State, view: View) -> State:
        if isinstance(view, ServerView):
            self.model.clear()
            self.model.update(view.model)
            return memory
        assert isinstance(view, UploadsView)
        assert self.method is not None
        assert self.shape is not None
        uploads, model = view.uploads, self.model
        sender, item, rating = self.divide(self.method, model, uploads, self.shape)
        pair = view.clients[sender] * self.shape.items + item
        return {**memory, **_added(memory, pair, rating)}

    def divide(
        self, method: Generated, model: State, uploads: Uploads, shape: Shape
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sender, item and rating of each row that tells one."""
        [rows] = uploads.rows.values()
        told, slope = method.slopes(model, uploads.clients, rows.sender, rows.item)
        told, slope, value = told.double(), slope.double(), -rows.value.double()
        length = slope.square().sum(1)
        alive = length > 0
        quotient = (value * slope).sum(1) / length.where(alive, 1.0)  # 2 (p - r) / b
        sent = torch.bincount(rows.sender, minlength=len(uploads.clients)).to(told)
        if uploads.weight is not None:  # of ratings, where more rows than that are sent
            sent = torch.minimum(sent, uploads.weight.to(told))
        size = self._sizes(sent, rows.sender, told, quotient, alive, shape)
        rating = told - size[rows.sender] / 2 * quotient
        usable = alive & rating.isfinite()
        return rows.sender[usable], rows.item[usable], rating[usable]

    def _sizes(
        self,
        sent: Tensor,
        sender: Tensor,
        told: Tensor,
        quotient: Tensor,
        alive: Tensor,
        shape: Shape,
    ) -> Tensor:
        """Ratings in each client's mean, (clients,)."""
        if shape.scale is None or shape.step == 0:
            return sent
        grid = Grid(*shape.scale, shape.step)
        size, found = sent.clone(), torch.zeros_like(sent, dtype=torch.bool)
        for extra in range(self.more + 1):
            rating = told - (sent + extra)[sender] / 2 * quotient
            off = ((rating - grid.nearest(rating)) / shape.step).abs()
            off = off.masked_fill(~alive, 0.0)
            worst = torch.zeros_like(sent).scatter_reduce(0, sender, off, "amax")
            fits = ~found & (worst <= self.near)
            size[fits] += extra
            found |= fits
        return size


def _added(memory: State, pair: Tensor, rating: Tensor) -> State:
    """Running sums by pair, with new ratings in them."""
    pairs, back = torch.unique(torch.cat([memory["pair"], pair]), return_inverse=True)
    none = torch.zeros(len(pairs), dtype=torch.float64, device=pairs.device)
    total = torch.cat([memory["sum"], rating])
    count = torch.cat([memory["count"], torch.ones_like(rating)])
    return {
        "pair": pairs,
        "sum": none.index_add(0, back, total),
        "count": none.index_add(0, back, count),
    }
