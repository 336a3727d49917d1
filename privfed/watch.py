"""Who watches a run: attacks, what each is granted, and what each is shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from privfed.data.world import Task, World
from privfed.interfaces import Attack, NotApplicable, State
from privfed.seeds import Seeds
from privfed.views import Guess, Prior, View


@dataclass(frozen=True)
class Watch:
    """The attacks on one run. An attack is handed the views it declares, no more."""

    attacks: Mapping[str, Attack]
    priors: Mapping[str, Prior]
    refused: Mapping[str, NotApplicable]

    @classmethod
    def of(
        cls,
        attacks: Mapping[str, Attack],
        given: Sequence[type[View]],
        world: World,
        negatives: int,
        seeds: Seeds,
    ) -> "Watch":
        """Grant each attack its prior; refuse what needs more than ``given`` views."""
        priors = {
            name: _prior(attack, world, negatives, seeds, name)
            for name, attack in attacks.items()
        }
        refused = {
            name: reason
            for name, attack in attacks.items()
            if (reason := _refusal(attack, given, world.task))
        }
        return cls(attacks, priors, refused)

    def start(self) -> dict[str, State]:
        """Every attack's memory before the first round."""
        return {
            name: attack.start(self.priors[name])
            for name, attack in self.attacks.items()
            if name not in self.refused
        }

    def show(self, memory: dict[str, State], view: View) -> None:
        """Let every attack that may see ``view`` take it in."""
        for name, before in memory.items():
            attack = self.attacks[name]
            for seen in attack.sees:
                if isinstance(view, seen):
                    memory[name] = attack.observe(before, narrow(view, seen))
                    break

    def guesses(
        self, memory: Mapping[str, State]
    ) -> Mapping[str, Guess | NotApplicable]:
        """What every attack claims in the end, on the CPU."""
        made: dict[str, Guess | NotApplicable] = dict(self.refused)
        for name, seen in memory.items():
            guess = self.attacks[name].guess(seen, self.priors[name])
            made[name] = Guess(
                guess.clients.cpu(), guess.score.cpu(), guess.chosen.cpu()
            )
        return made


def narrow(view: View, kind: type[View]) -> View:
    """The view as ``kind`` and nothing more."""
    return kind(**{f.name: getattr(view, f.name) for f in fields(kind)})


def _refusal(
    attack: Attack, given: Sequence[type[View]], task: Task
) -> NotApplicable | None:
    if task not in attack.tasks:
        meant = " and ".join(attack.tasks)
        return NotApplicable(f"reads uploads of {meant} methods; this run's is {task}")
    if any(issubclass(shown, seen) for shown in given for seen in attack.sees):
        return None
    needs = " or ".join(seen.__name__ for seen in attack.sees)
    has = ", ".join(shown.__name__ for shown in given)
    return NotApplicable(f"needs {needs}; this channel shows {has}")


def _prior(
    attack: Attack, world: World, negatives: int, seeds: Seeds, name: str
) -> Prior:
    return Prior(
        world.shape.clients,
        world.shape.items,
        seeds(f"attack {name}"),
        negatives,
        world.popularity if attack.knows.popularity else None,
        world.features if attack.knows.features else {},
    )
