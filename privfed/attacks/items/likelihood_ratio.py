"""Interaction-level membership by a likelihood ratio, calibrated on made-up users.

LiRA (Carlini et al., Membership Inference Attacks From First Principles, S&P 2022)
asks how much likelier a statistic is under models that saw a record than under models
that did not. Here the record is an interaction, the statistic an uploaded item row, and
the models are those of shadow users: invented, trained by the public algorithm on the
received model and defended as everybody is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from privfed.adversary import Attack, Knowledge, Prior
from privfed.attacks.items.densities import Blend, Student
from privfed.attacks.items.row_features import Features, features
from privfed.attacks.reading.axis import by_client
from privfed.checks import at_least
from privfed.guesses import Interactions
from privfed.interfaces import State
from privfed.seeds import Stream
from privfed.shadows import Shadows, shadows
from privfed.views import ServerView, UploadsView, View

_EXAMPLES = 1000  # interactions, at least, that a density is fitted to
_SMALLEST = 4  # interactions of a shadow user
_UNLIKELY = 1e-3
_LARGEST = 3  # of a catalog a shadow user has one in so many


@dataclass(frozen=True)
class LikelihoodRatio(Attack):
    """Membership of each interaction, by how likely its row is with and without it.

    Shadow users of several ``sizes`` take items by popularity; for each size there are
    ``shadows`` of them or more, from ``starts`` draws of the private start. They are
    trained and defended by the public algorithm on the model that the server sent, so
    noise that is known widens what is likely. A row is read through its place along the
    client's principal axis, where it was before, and its length, under a heavy-tailed
    density for interactions and one for each kind of other row. A client is compared
    with shadows that sent alike, an axis is turned the way that is likelier, and the
    chance that an item is taken at all, by its popularity, is part of the ratio.
    Of ``victims`` clients drawn at random, those that send in the first ``rounds``
    rounds are judged, by their first upload.
    """

    sizes: int = 8
    shadows: int = 32
    starts: int = 4
    victims: int = 1000
    rounds: int = 1

    sees = (ServerView, UploadsView)
    knows = Knowledge(popularity=True, features=True)
    tasks = ("ranking",)
    recovers = "membership of single interactions"
    paper = "LiRA, Carlini et al., S&P 2022, for interactions (this project)"

    def __post_init__(self) -> None:
        at_least(self, 2, "sizes", "shadows")
        at_least(self, 1, "starts", "victims", "rounds")

    def start(self, prior: Prior) -> State:
        clients = torch.arange(prior.clients)
        turn = prior.stream.of("victims").bits(clients, torch.zeros_like(clients))
        return {
            "items": torch.tensor(prior.items),
            "waited for": turn.argsort().argsort() < self.victims,
        }

    def observe(self, memory: State, view: View) -> State:
        if view.round >= self.rounds:
            return memory
        if isinstance(view, ServerView):
            name = f"model {view.round} "  # copied: a saved state has no tensor twice
            return {**memory, **{name + n: v.clone() for n, v in view.model.items()}}
        assert isinstance(view, UploadsView)
        return self._noted(memory, view)

    def _noted(self, memory: State, view: UploadsView) -> State:
        """With the features of uploads of clients that are waited for."""
        fresh = memory["waited for"][view.clients]
        tables, items = view.uploads.rows, int(memory["items"])
        if not bool(fresh.any()) or not tables:
            return memory
        model = _model(memory, view.round)
        found = features(tables, model, len(view.clients), items)
        mine = fresh[found.sender]
        waiting = memory["waited for"].clone()
        waiting[view.clients] = False
        clients = view.clients[fresh]
        new = {
            "owner": view.clients[found.sender[mine]],
            "item": found.item[mine],
            "value": found.value[mine],
            "client": clients,
            "told": found.client[fresh],
            "round": torch.full_like(clients, view.round),
        }
        if "client" in memory:
            new = {n: torch.cat([memory[n], value]) for n, value in new.items()}
        return {**memory, **new, "waited for": waiting}

    def guess(self, memory: State, prior: Prior) -> Interactions:
        if "client" not in memory:
            none = torch.zeros(0, dtype=torch.int64)
            return Interactions(none, none, none, torch.zeros(0))
        clients, order = memory["client"].sort()
        told, round = memory["told"][order], memory["round"][order]
        owner = torch.searchsorted(clients, memory["owner"])
        by_pair = (owner * prior.items + memory["item"]).argsort()
        sender, item = owner[by_pair], memory["item"][by_pair]
        seen = Features(sender, item, memory["value"][by_pair], told)
        score = torch.zeros(len(item), dtype=torch.float64)
        for number in sorted({*round.tolist()}):
            examples = self._examples(prior, _model(memory, number), number)
            now = round == number
            at = now[sender].nonzero()[:, 0]
            score[at] = odds(_part(seen, now, at), examples)
        return Interactions(clients, sender, item, score)

    def _examples(self, prior: Prior, model: State, round: int) -> list["Examples"]:
        stream = prior.stream.of("shadows", round)
        low, high = _SMALLEST, max(_SMALLEST + 1, prior.items // _LARGEST)
        steps = torch.linspace(0, 1, self.sizes, dtype=torch.float64, device="cpu")
        sizes = sorted({*(low * (high / low) ** steps).round().long().tolist()})
        return [
            self._of_size(prior, model, round, size, stream.of("size", size))
            for size in sizes
        ]

    def _of_size(
        self, prior: Prior, model: State, round: int, size: int, stream: Stream
    ) -> "Examples":
        enough = max(self.shadows, -(-_EXAMPLES // size))
        count = min(-(-enough // self.starts), prior.clients)
        found = []
        for start in range(self.starts):
            draws = stream.of("start", start)
            taken = _taken(prior, count, size, draws.of("items"))
            found.append(shadows(prior, model, round, taken, draws))
        return Examples.of([_read(one, model) for one in found], prior, size)


@dataclass(frozen=True, eq=False)
class _Read:
    """Features of shadow users, turned right, and what is known of them."""

    value: Tensor  # (pairs, d)
    taken: Tensor  # (pairs,) bool
    trained: Tensor  # (pairs,) bool: a row that training touched
    client: Tensor  # (shadows, e)


@dataclass(frozen=True, eq=False)
class Examples:
    """What shadow users of one size show; chances are of (item, row) being sent."""

    inside: Student
    outside: Blend
    taken: Tensor  # (items,) log of the chance of an interaction
    other: Tensor  # (items,) log of the chance of another row
    mean: Tensor  # (e,) of what is told of a client
    variance: Tensor  # (e,)

    @classmethod
    def of(cls, read: Sequence[_Read], prior: Prior, size: int) -> "Examples":
        value, taken, trained, client = (
            torch.cat([getattr(one, name) for one in read])
            for name in ("value", "taken", "trained", "client")
        )
        others = ((~taken).sum() / len(client) + 1e-3) / (prior.items - size)
        chance = _chances(prior, size)
        return cls(
            Student.fit(value[taken]),
            Blend.fit([value[~taken & trained], value[~taken & ~trained]]),
            chance.log(),
            (-chance).log1p() + others.log(),
            client.mean(0),
            client.var(0, correction=0),
        )

    def densities(self, value: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """Log of the chance of each row as an interaction's, and as another's."""
        return (
            self.taken[item] + self.inside.log_density(value),
            self.other[item] + self.outside.log_density(value),
        )


def odds(of: Features, examples: Sequence[Examples]) -> Tensor:
    """The log odds that each row is an interaction's, (pairs,) float64.

    Over what is not known of a client, its size and how its axes point, the chances
    are averaged, by how likely what it sent is.
    """
    clients, tables = len(of.client), of.value.shape[1]
    sizes = _sizes(of.client, examples)
    inside, outside, fit = [], [], []
    for signs in product((1.0, -1.0), repeat=tables):
        value = of.turned(torch.tensor(signs).expand(clients, tables))
        chances = torch.full((2, len(value)), -torch.inf, dtype=torch.float64)
        for k, one in enumerate(examples):
            at = (sizes[of.sender, k] > _UNLIKELY).nonzero()[:, 0]
            known = sizes[of.sender[at], k].log()
            both = torch.stack(one.densities(value[at], of.item[at])) + known
            chances[:, at] = torch.logaddexp(chances[:, at], both)
        inside.append(chances[0])
        outside.append(chances[1])
        fit.append(by_client(chances.logsumexp(0), of.sender, clients))
    turn = torch.stack(fit).log_softmax(0)[:, of.sender]
    ours, theirs = (
        (torch.stack(kind) + turn).logsumexp(0) for kind in (inside, outside)
    )
    return ours - theirs


def _sizes(told: Tensor, examples: Sequence[Examples]) -> Tensor:
    """How likely each client is of each size, (clients, sizes).

    Sizes in between look like what lies between two examples.
    """
    mean = torch.stack([one.mean for one in examples])
    gap = torch.zeros_like(mean)
    gap[1:] = mean.diff(dim=0).abs()
    gap[:-1] = torch.maximum(gap[:-1], mean.diff(dim=0).abs())
    variance = torch.stack([one.variance for one in examples]) + (gap / 2).square()
    variance = variance + 1e-6
    apart = (told[:, None] - mean).square() / variance
    return (-(apart + variance.log()).sum(2) / 2).softmax(1)


def _model(memory: State, round: int) -> State:
    """All that the server held when a round began."""
    name = f"model {round} "
    return {n.removeprefix(name): v for n, v in memory.items() if n.startswith(name)}


def _part(of: Features, clients: Tensor, at: Tensor) -> Features:
    """Some clients' rows, by a mark on the clients and the rows' places."""
    place = clients.cumsum(0) - 1
    sender = place[of.sender[at]]
    return Features(sender, of.item[at], of.value[at], of.client[clients])


def _read(seen: Shadows, model: State) -> _Read:
    count, items = seen.taken.shape
    found = features(seen.uploads.rows, model, count, items)
    taken = seen.taken[found.sender, found.item]
    touched = torch.zeros_like(seen.taken)
    for rows in seen.trained.values():
        touched[rows.sender, rows.item] = True
    along = found.value[:, :, 0]
    inside, outside = (
        by_client(along * kind[:, None], found.sender, count)
        / by_client(kind.float(), found.sender, count).clamp_min(1)[:, None]
        for kind in (taken, ~taken)
    )
    sign = torch.where(inside >= outside, 1.0, -1.0)
    trained = touched[found.sender, found.item]
    return _Read(found.turned(sign), taken, trained, found.client)


def _rates(prior: Prior) -> Tensor:
    """How often an item is taken, relative to others, (items,) float64."""
    common = prior.popularity
    known = torch.zeros(prior.items) if common is None else common
    return known.double() + 0.5


def _taken(prior: Prior, count: int, size: int, stream: Stream) -> Tensor:
    """Random item sets by popularity, (count, items) bool.

    The first to arrive of independent exponential times, one for each item.
    """
    rng = stream.generator()
    drawn = torch.rand(count, prior.items, generator=rng, device="cpu").double()
    rates = _rates(prior)
    time = -drawn.to(rates.device).clamp_min(1e-12).log() / rates
    first = time.topk(size, dim=1, largest=False).indices
    return torch.zeros_like(time, dtype=torch.bool).scatter(1, first, True)


def _chances(prior: Prior, size: int) -> Tensor:
    """The chance that a shadow user of a size has each item, (items,) float64."""
    rates = _rates(prior)
    low, high = rates.new_zeros(()), 60 / rates.min()
    for _ in range(100):  # of the time by which so many have arrived
        middle = (low + high) / 2
        enough = -(-middle * rates).expm1().sum() >= size
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return -(-high * rates).expm1().clamp(-1 + 1e-9, -1e-9)
