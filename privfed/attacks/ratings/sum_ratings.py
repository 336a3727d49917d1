"""Ratings out of the sum of a cohort's uploads, where ratings are inner products.

A client's rows are its errors times one vector. The sum comes apart where rows have few
senders, and each part is an upload of its own: the ratings on the scale's grid tell how
long its vector is. The parts bear no name. A client's vector hardly changes from round
to round, so parts of several rounds belong to whoever took part in all of these.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.adversary import Attack, Prior
from privfed.attacks.reading.cohorts import came, cohorts, nobody
from privfed.attacks.reading.grid import Grid, fitted
from privfed.attacks.reading.rank_one import Lines
from privfed.attacks.reading.unmix import unmix
from privfed.checks import at_least, positive
from privfed.guesses import Ratings
from privfed.interfaces import Method, State
from privfed.messages import Total
from privfed.surfaces import InnerProduct
from privfed.views import ModelView, RoundView, TotalView, View

_TABLE = "table."
_BLOCK = 512  # vectors compared at a time


@dataclass(frozen=True)
class SumRatings(Attack):
    """Rating recovery from sums and from who took part in each.

    Takes a sum apart into up to ``lines`` clients' rows, dropping those whose scale
    another fits within ``margin`` of log likelihood. Vectors of two rounds within
    ``near`` of their length are one client's; it is named where one member of the
    round is that much more likely than all others. Of a client that is never named it
    claims, for each item that somebody unnamed of its first cohort rated, the mean of
    their ratings: right where there is one. Rows that do not come apart are left out.
    A cohort of one is an upload. ``rounds`` bounds the sums read.
    """

    lines: int = 64
    rounds: int = 1000
    margin: float = 3.0
    near: float = 0.1

    sees = (RoundView, TotalView, ModelView)
    recovers = "ratings"
    tasks = ("rating",)
    paper = "this project; single uploads: Chai et al., IEEE Intelligent Systems 2020"

    def __post_init__(self) -> None:
        at_least(self, 1, "lines", "rounds")
        positive(self, "margin", "near")

    def misfit(self, method: Method) -> str:
        if not isinstance(method, InnerProduct):
            return "reads rows that are an error times the user's vector"
        if method.pass_(0).optimizer != "sgd":
            return "local steps other than of SGD hide how large an error is"
        return ""

    def start(self, prior: Prior) -> State:
        method, shape = prior.method, prior.shape
        assert isinstance(method, InnerProduct)
        how = method.pass_(0)
        scale = 1.0 if how.mean else how.rate  # what is averaged is sent as a gradient
        low, high = shape.scale or (0.0, 0.0)
        none = torch.zeros(0, dtype=torch.int64)
        return {
            **nobody(),
            f"{_TABLE}{how.table}": torch.zeros(0, 0),
            "size": torch.tensor([scale * how.factor * how.steps, how.decay]).double(),
            "grid": torch.tensor([low, high, shape.step]).double(),
            "round": none,  # of each sum
            "line.round": none,
            "part.line": none,
            "part.item": none,
            "part.rating": torch.zeros(0, dtype=torch.float64),
        }

    def observe(self, memory: State, view: View) -> State:
        if view.round >= self.rounds:
            return memory
        key = next(name for name in memory if name.startswith(_TABLE))
        table = key.removeprefix(_TABLE)
        if isinstance(view, ModelView):
            return {**memory, key: view.model[table].double()}
        if isinstance(view, RoundView):
            return came(memory, view)
        assert isinstance(view, TotalView)
        known = torch.cat([memory["round"], torch.tensor([view.round])])
        if table not in view.total.tables or not bool(memory["grid"][2] > 0):
            return {**memory, "round": known}
        found = self._read(view.total, table, memory)
        found["line.round"] = torch.full_like(found["part.line"][:0], view.round)
        lines = len(found["line.vector"])
        found["line.round"] = torch.full((lines,), view.round)
        found["part.line"] = found["part.line"] + len(memory["line.round"])
        before = {name: memory.get(name, value[:0]) for name, value in found.items()}
        added = {n: torch.cat([before[n], value]) for n, value in found.items()}
        return {**memory, **added, "round": known}

    def _read(self, total: Total, table: str, memory: State) -> dict[str, Tensor]:
        """What one sum tells: vectors, and ratings along them."""
        size, decay = memory["size"]
        grid = Grid(*memory["grid"].tolist())
        items, senders = memory[f"{_TABLE}{table}"], total.senders[table]
        sent = total.tables[table].double()
        if bool((senders == senders[:1]).all()):  # zeros are sent as well
            senders = sent.abs().sum(1).gt(0).long()
        value = sent / size + senders[:, None] * items * decay
        parts = unmix(value, senders, min(total.clients, self.lines))
        axis = parts.axis
        lines = Lines(parts.along, (axis[parts.line] * items[parts.row]).sum(1))
        fit = fitted(lines, parts.line, axis.new_zeros(len(axis)), grid)
        sure = fit.margin > self.margin
        kept = sure[parts.line]
        place = sure.cumsum(0) - 1
        return {
            "line.vector": (axis * fit.second[:, None])[sure],
            "part.line": place[parts.line][kept],
            "part.item": parts.row[kept],
            "part.rating": grid.nearest(fit.at(lines, parts.line))[kept],
        }

    def guess(self, memory: State, prior: Prior) -> Ratings:
        clients, member = cohorts(memory, memory["round"])
        none = torch.zeros(0, dtype=torch.int64)
        if "line.vector" not in memory or not len(memory["line.vector"]):
            return Ratings(clients, none, none, torch.zeros(0))
        order = memory["round"].argsort()
        at = torch.searchsorted(memory["round"][order], memory["line.round"])
        round = order[at]  # of each line, as a place in ``member``
        name = self._named(memory["line.vector"], round, member)
        line, item = memory["part.line"], memory["part.item"]
        rating = memory["part.rating"]
        told = name[line] >= 0
        sender, items, value = _mean(name[line][told], item[told], rating[told], prior)
        known = torch.zeros(len(clients), dtype=torch.bool)
        known[sender] = True
        pooled = _mean(round[line][~told], item[~told], rating[~told], prior)
        nameless = (~known).nonzero()[:, 0]
        more = _spread(nameless, member.argmax(0)[nameless], pooled)
        sender, items, value = (
            torch.cat(both) for both in zip((sender, items, value), more, strict=True)
        )
        return Ratings(clients, sender, items, value.float())

    def _named(self, vector: Tensor, round: Tensor, member: Tensor) -> Tensor:
        """Each line's client, as a column of ``member``, -1 where it cannot be told."""
        again = self._again(vector, round, len(member))  # (lines, rounds)
        part = member[round]  # (lines, clients): who may it be?
        others = member.sum(0) - 1
        matches = again @ member - again.gather(1, round[:, None]) * part
        found = (len(round) / member.sum()).clamp(0.05, 0.95)
        false = 1e-3
        chance = matches * (found / false).log()
        chance += (others - matches) * ((1 - found) / (1 - false)).log()
        chance = torch.where(part > 0, chance, -torch.inf)
        best = chance.topk(min(2, chance.shape[1]), dim=1)
        rival = best.values[:, -1] if chance.shape[1] > 1 else -torch.inf
        clear = best.values[:, 0] - rival > self.margin
        return torch.where(clear, best.indices[:, 0], -1)

    def _again(self, vector: Tensor, round: Tensor, rounds: int) -> Tensor:
        """Which rounds have a line along each vector, 0 or 1: (lines, rounds)."""
        found = []
        for some in torch.split(vector, _BLOCK):
            close = torch.cdist(some, vector) <= self.near * some.norm(dim=1)[:, None]
            times = vector.new_zeros(len(some), rounds)
            found.append(times.index_add_(1, round, close.double()).clamp(max=1))
        return torch.cat(found)


def _mean(
    owner: Tensor, item: Tensor, rating: Tensor, prior: Prior
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean rating of each (owner, item): (owner, item, rating)."""
    pair, back = torch.unique(owner * prior.items + item, return_inverse=True)
    total = rating.new_zeros(len(pair)).index_add_(0, back, rating)
    times = torch.bincount(back, minlength=len(pair))
    return pair // prior.items, pair % prior.items, total / times


def _spread(
    clients: Tensor, first: Tensor, claims: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Claims (round, item, rating), by round, of all clients ``first`` seen in it."""
    round, item, rating = claims
    begin = torch.searchsorted(round, first)
    counts = torch.searchsorted(round, first, right=True) - begin
    run = torch.repeat_interleave(torch.arange(len(counts)), counts)
    at = torch.arange(len(run)) + (begin - counts.cumsum(0) + counts)[run]
    return clients[run], item[at], rating[at]
