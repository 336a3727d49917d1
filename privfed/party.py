"""Malicious clients of a run: who they are, what they promote, what they send."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from privfed.catalog import name_of
from privfed.checks import at_least, not_negative
from privfed.data.cohort import Cohort
from privfed.data.world import Pairs, Ragged, World, ragged
from privfed.errors import SettingsError
from privfed.interfaces import Defense, Method, State
from privfed.messages import Rows, Uploads
from privfed.poisoning import Plot, Poisoner, Sortie
from privfed.references import item_means
from privfed.seeds import Seeds, Stream
from privfed.surfaces import Regularized

_HEAD, _TAIL = 0.1, 0.5  # shares of the catalog, by popularity
_CLASSES = ("tail", "torso", "head", "random", "least")


@dataclass(frozen=True)
class Malicious:
    """How many clients are malicious, and which items they promote.

    ``share`` is of the honest clients, to whom they are added, rounded down.
    ``target`` is where ``targets`` items are drawn from: the ``tail`` is the less
    popular half of the catalog, the ``head`` its most popular tenth, the ``torso``
    what is between; ``random`` is all of it; ``least`` takes the least popular ones.
    Or the items' numbers, "894" or "894+12". With ``baseline`` the same run is made
    without malicious clients, too, to say what they changed.
    """

    share: float = 0.05
    target: str = "tail"
    targets: int = 1
    baseline: bool = True

    def __post_init__(self) -> None:
        not_negative(self, "share")
        at_least(self, 1, "targets")
        if self.target not in _CLASSES and not self._numbers():
            raise ValueError(
                f"target must be {', '.join(_CLASSES)} or items by number, such as "
                f"894+12, got {self.target!r}"
            )

    def _numbers(self) -> list[int]:
        words = self.target.split("+")
        return [int(w) for w in words] if all(w.isdigit() for w in words) else []

    def count(self, world: World) -> int:
        """How many clients join; SettingsError where a share above 0 is nobody."""
        honest = len(world.eligible)
        count = int(self.share * honest + 1e-9)
        if self.share > 0 and not count:
            raise SettingsError(
                f"a share of {self.share:g} of {honest} clients is nobody; give "
                f"--malicious {1 / honest:.2g} or more"
            )
        return count

    def items(self, world: World, draws: Stream) -> Tensor:
        """The items to promote; SettingsError where the catalog has none such."""
        if numbers := self._numbers():
            return self._numbered(numbers, world.shape.items)
        group = self._class(world)
        if self.targets > len(group):
            raise SettingsError(
                f"{self.targets} targets are more than the {len(group)} items of the "
                f"{self.target}; lower --targets"
            )
        order = torch.arange(len(group))
        if self.target != "least":
            order = draws.bits(group, torch.zeros_like(group)).argsort(stable=True)
        chosen: Tensor = group[order[: self.targets]].sort().values
        return chosen

    def _numbered(self, numbers: list[int], catalog: int) -> Tensor:
        if max(numbers) >= catalog:
            raise SettingsError(
                f"target {max(numbers)} is no item: numbers go to {catalog - 1}"
            )
        chosen: Tensor = torch.unique(torch.tensor(numbers))
        return chosen

    def _class(self, world: World) -> Tensor:
        order = world.popularity.argsort(descending=True, stable=True)
        count = len(order)
        head, torso = int(_HEAD * count), int((1 - _TAIL) * count)
        if self.target == "least":
            return world.popularity.argsort(stable=True)
        parts = {"head": order[:head], "torso": order[head:torso]}
        return parts.get(self.target, order[torso:] if self.target == "tail" else order)


@dataclass(frozen=True, kw_only=True)
class Party(Malicious):
    """A poisoner and its part in a run.

    ``public`` are the interactions known to it, drawn where it is None.
    """

    poisoner: Poisoner
    public: Ragged | None = None


@dataclass(frozen=True, eq=False)
class Gang:
    """A run's malicious clients, ready."""

    name: str
    poisoner: Poisoner
    plot: Plot
    fakes: Ragged  # made-up interactions, by position in ``plot.mine``
    draws: Seeds

    @classmethod
    def of(
        cls,
        party: Party,
        world: World,
        method: Method,
        defenses: Sequence[Defense],
        seeds: Seeds,
    ) -> "Gang":
        """Grant a poisoner what it is due; SettingsError where it cannot attack."""
        name = name_of(party.poisoner)
        if reason := _refusal(party.poisoner, world, method):
            raise SettingsError(f"{name} cannot attack {name_of(method)}: {reason}")
        plot = _plot(party, world, method, defenses, seeds)
        if not len(plot.mine):
            return cls(name, party.poisoner, plot, _nothing(), seeds)
        ready = party.poisoner.prepare(plot)
        made = _checked(ready.data(plot), plot, name)
        owned = ragged(len(plot.mine), made.sender, made.item, made.label, made.context)
        return cls(name, ready, plot, owned, seeds)

    def start(self) -> State:
        """What the poisoner remembers before the first round."""
        return self.poisoner.start(self.plot) if len(self.plot.mine) else {}

    def devices(self, cohort: Cohort) -> Cohort:
        """Malicious clients of a round with what lies on their devices."""
        own = self.fakes.of(torch.searchsorted(self.plot.mine, cohort.clients))
        return replace(
            cohort,
            sender=own.sender,
            item=own.item,
            label=own.label,
            context=own.context,
        )

    def forge(self, memory: State, sortie: Sortie) -> tuple[State, Uploads]:
        """What is remembered and sent, in the form and the bounds of honest uploads."""
        memory, forged = self.poisoner.forge(memory, sortie, self.plot)
        _same_form(forged, sortie.uploads, self.name)
        return memory, _admitted(forged, self.plot.method)

    def promoted(self, uploads: Uploads) -> int:
        """How many rows of uploads are of promoted items, in the first table."""
        item = next((rows.item for rows in uploads.rows.values()), None)
        if item is None:
            return 0
        return sum(int((item == target).sum()) for target in self.plot.targets)

    def stream(self, round: int) -> Stream:
        """The poisoner's draws of a round."""
        return self.draws("forge", round)


def _refusal(poisoner: Poisoner, world: World, method: Method) -> str:
    if world.task not in poisoner.tasks:
        meant = " and ".join(poisoner.tasks)
        return f"it poisons {meant} methods; this run's is {world.task}"
    return poisoner.misfit(method)


def _plot(
    party: Party,
    world: World,
    method: Method,
    defenses: Sequence[Defense],
    seeds: Seeds,
) -> Plot:
    knows = party.poisoner.knows
    share = party.poisoner.public_share()
    public = party.public
    if public is None and share > 0:
        public = _share(world.train, share, seeds("public"))
    none = torch.zeros(0, dtype=torch.int64)
    promotes = party.poisoner.aim == "promote"
    return Plot(
        world.shape,
        seeds("poisoner"),
        method,
        defenses,
        world.popularity if knows.popularity else None,
        world.features if knows.features else {},
        mine=torch.arange(world.honest, world.shape.clients),
        targets=party.items(world, seeds("targets")) if promotes else none,
        public=None if public is None else _beyond(public, world.shape.clients),
        item_means=item_means(world) if knows.ratings else None,
    )


def _nothing() -> Ragged:
    none = torch.zeros(0, dtype=torch.int64)
    return ragged(0, none, none, torch.zeros(0))


def _beyond(public: Ragged, clients: int) -> Ragged:
    return public.beyond(clients - len(public.counts))


def _share(train: Ragged, share: float, draws: Stream) -> Ragged:
    """A share of each client's interactions, rounded up, drawn at random."""
    owner, counts = train.owner, train.counts
    key = draws.bits(owner, train.item).argsort(stable=True)
    order = key[owner[key].argsort(stable=True)]
    place = torch.arange(len(owner)) - train.offsets[owner]
    kept = (counts.double() * share - 1e-9).ceil().long()
    at = order[place < kept[owner]].sort().values
    clients = len(counts)
    return ragged(clients, owner[at], train.item[at], train.label[at])


def _checked(made: Pairs, plot: Plot, name: str) -> Pairs:
    """Raise ValueError where made-up data could not lie on devices."""
    key = made.sender * plot.items + made.item
    good = (
        bool((made.sender.diff() >= 0).all())
        and bool((made.item >= 0).all() and (made.item < plot.items).all())
        and bool((made.sender < len(plot.mine)).all())
        and len(torch.unique(key)) == len(key)
        and bool(made.label.isfinite().all())
    )
    if not good:
        raise ValueError(
            f"{name}: made-up data must be of its clients, in order, each item once"
        )
    return made


def _same_form(forged: Uploads, honest: Uploads, name: str) -> None:
    """Raise ValueError for uploads that a server would not take for ordinary ones."""
    if not (
        torch.equal(forged.clients, honest.clients)
        and forged.rows.keys() == honest.rows.keys()
        and _sizes(forged.dense) == _sizes(honest.dense)
        and _sizes(forged.users) == _sizes(honest.users)
        and _sizes(forged.rest) == _sizes(honest.rest)
        and (forged.weight is None) == (honest.weight is None)
    ):
        raise ValueError(f"{name}: a forged upload must have the form of the others")
    values = [*forged.dense.values(), *(rows.value for rows in forged.rows.values())]
    if not all(bool(value.isfinite().all()) for value in values):
        raise ArithmeticError(f"{name}: a forged upload is not finite")


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in tensors.items()}


def _admitted(uploads: Uploads, method: Method) -> Uploads:
    """Uploads with every row cut to what the method's server admits."""
    if not isinstance(method, Regularized) or method.longest_row() == torch.inf:
        return uploads
    longest = method.longest_row()

    def cut(rows: Rows) -> Rows:
        length = torch.linalg.vector_norm(rows.value, dim=1, keepdim=True)
        factor = (longest / length.clamp_min(1e-30)).clamp_max(1.0)
        return replace(rows, value=rows.value * factor)

    return replace(uploads, rows={n: cut(rows) for n, rows in uploads.rows.items()})
