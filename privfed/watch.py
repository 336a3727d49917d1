"""Who watches a run: attacks, what each is granted, and what each is shown."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from privfed.adversary import Attack, NotApplicable, Prior
from privfed.data.attributes import Labels
from privfed.data.world import World
from privfed.guesses import Attributes, Guess, Links
from privfed.interfaces import Defense, Method, State
from privfed.seeds import Seeds, Stream
from privfed.views import ModelView, UnlinkedView, UploadsView, View

FOLDS = 5  # of users whose attributes are guessed from those of the others
Claims = Mapping[str, Guess | NotApplicable]


@dataclass(frozen=True)
class Watch:
    """The attacks on one run. An attack is handed the views it declares, no more."""

    attacks: Mapping[str, Attack]
    priors: Mapping[str, Prior]
    refused: Mapping[str, NotApplicable]
    names: Stream  # draws of pseudonyms

    @classmethod
    def of(
        cls,
        attacks: Mapping[str, Attack],
        given: Sequence[type[View]],
        world: World,
        method: Method,
        defenses: Sequence[Defense],
        seeds: Seeds,
    ) -> "Watch":
        """Grant each attack its prior; refuse what needs more than ``given`` views."""
        priors = {
            name: _prior(attack, world, method, defenses, seeds(f"attack {name}"))
            for name, attack in attacks.items()
        }
        refused = {
            name: NotApplicable(reason)
            for name, attack in attacks.items()
            if (reason := _refusal(attack, given, world, method))
        }
        ready = {
            name: attack if name in refused else attack.prepare(priors[name])
            for name, attack in attacks.items()
        }
        return cls(ready, priors, refused, seeds("pseudonyms"))

    def start(self) -> dict[str, State]:
        """Every attack's memory before the first round."""
        return {
            name: attack.start(self.priors[name])
            for name, attack in self.attacks.items()
            if name not in self.refused
        }

    def show(
        self, memory: dict[str, State], view: View, seconds: dict[str, float]
    ) -> None:
        """Let every attack that may see ``view`` take it in; add up its seconds."""
        for name, before in memory.items():
            attack = self.attacks[name]
            for kind in attack.sees:
                if can_show(type(view), kind):
                    seen = self._as(view, kind, self.priors[name].clients)
                    with timed(seconds, name):
                        memory[name] = attack.observe(before, seen)
                    break

    def _as(self, view: View, kind: type[View], clients: int) -> View:
        if not issubclass(kind, UnlinkedView):
            return narrow(view, kind)
        assert isinstance(view, UploadsView)
        return UnlinkedView.of(view, self._pseudonyms(view.round, clients))

    def _pseudonyms(self, round: int, clients: int) -> Tensor:
        """Each client's name in one round, (clients,)."""
        draws = self.names.of("round", round).generator()
        drawn = torch.randperm(clients, generator=draws, device="cpu")
        return drawn.to(torch.get_default_device())

    def guesses(self, memory: Mapping[str, State], seconds: dict[str, float]) -> Claims:
        """What every attack claims in the end, on the CPU."""
        made: dict[str, Guess | NotApplicable] = dict(self.refused)
        for name, seen in memory.items():
            with timed(seconds, name):
                guess = self._guess(self.attacks[name], seen, self.priors[name])
            if isinstance(guess, Links):
                guess = self._resolved(guess, self.priors[name].clients)
            made[name] = _on_cpu(guess)
        return made

    def _guess(self, attack: Attack, seen: State, prior: Prior) -> Guess:
        if not attack.knows.attributes:
            return attack.guess(seen, prior)
        parts = [
            _of(attack.guess(seen, _without(prior, hidden)), hidden)
            for hidden in _folds(prior)
        ]
        clients = torch.cat([part.clients for part in parts])
        order = clients.argsort()
        scores = {
            name: torch.cat([part.scores[name] for part in parts])[order]
            for name in parts[0].scores
        }
        return Attributes(clients[order], scores)

    def _resolved(self, guess: Links, clients: int) -> Links:
        """The same links between clients instead of pseudonyms."""
        first, later = (
            self._pseudonyms(round, clients).argsort()[names]
            for round, names in zip(
                guess.rounds, (guess.clients, guess.others), strict=True
            )
        )
        rows, columns = first.argsort(), later.argsort()
        score = guess.score[rows][:, columns]
        return replace(guess, clients=first[rows], others=later[columns], score=score)


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add what the block takes, in processor seconds, to one attack's."""
    start = time.thread_time()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.thread_time() - start


def can_show(shown: type[View], kind: type[View]) -> bool:
    """Whether a view of one type can be handed over as another."""
    if issubclass(kind, UnlinkedView):
        return issubclass(shown, UploadsView)
    return issubclass(shown, kind)


def narrow(view: View, kind: type[View]) -> View:
    """The view as ``kind`` and nothing more."""
    return kind(**{f.name: getattr(view, f.name) for f in fields(kind)})


def _refusal(
    attack: Attack, given: Sequence[type[View]], world: World, method: Method
) -> str:
    if world.task not in attack.tasks:
        meant = " and ".join(attack.tasks)
        return f"reads uploads of {meant} methods; this run's is {world.task}"
    if attack.knows.attributes and not world.attributes:
        return "the data tell no attribute of any user"
    if reason := attack.misfit(method):
        return reason
    missing = [
        kind.__name__
        for kind in attack.sees
        if not any(can_show(shown, kind) for shown in given)
    ]
    if not missing:
        return ""
    has = ", ".join(shown.__name__ for shown in given)
    return f"needs {' and '.join(missing)}; this channel shows {has}"


def _prior(
    attack: Attack,
    world: World,
    method: Method,
    defenses: Sequence[Defense],
    stream: Stream,
) -> Prior:
    knows = attack.knows
    if knows.profiles and attack.sees != (ModelView,):
        raise TypeError(f"{type(attack).__name__}: profiles go with ModelView alone")
    return Prior(
        world.shape,
        stream,
        method,
        defenses,
        world.popularity if knows.popularity else None,
        world.features if knows.features else {},
        world.train if knows.profiles else None,
        world.attributes if knows.attributes else {},
    )


def _folds(prior: Prior) -> Iterator[Tensor]:
    """Clients whose attributes are to be guessed, a fold at a time."""
    draws = prior.stream.of("folds").generator()
    mixed = torch.randperm(prior.clients, generator=draws, device="cpu")
    for fold in mixed.to(torch.get_default_device()).chunk(FOLDS):
        yield fold.sort().values


def _without(prior: Prior, hidden: Tensor) -> Prior:
    """A prior that does not tell the attributes of some clients."""

    def masked(known: Labels) -> Labels:
        label = known.label.clone()
        label[hidden] = -1
        return Labels(known.names, label)

    told = {name: masked(known) for name, known in prior.attributes.items()}
    return replace(prior, attributes=told)


def _of(guess: Guess, clients: Tensor) -> Attributes:
    """What is claimed of some clients."""
    assert isinstance(guess, Attributes)
    mine = torch.isin(guess.clients, clients)
    scores = {name: score[mine] for name, score in guess.scores.items()}
    return Attributes(guess.clients[mine], scores)


def _on_cpu(guess: Guess) -> Guess:
    def moved(value: object) -> object:
        if isinstance(value, Tensor):
            return value.cpu()
        if isinstance(value, Mapping):
            return {name: moved(one) for name, one in value.items()}
        return value

    there = {f.name: moved(getattr(guess, f.name)) for f in fields(guess)}
    return replace(guess, **there)  # type: ignore[arg-type]
