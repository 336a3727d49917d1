"""The devices' side of a round: local training and what defenses do there."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from privfed.data.cohort import Cohort, part_of
from privfed.devices.dpsgd import InteractionDP
from privfed.errors import SettingsError
from privfed.interfaces import Defense, Method, Plan, Round, State, Trained
from privfed.machine import Machine
from privfed.messages import Uploads
from privfed.seeds import Seeds

Work = Callable[[Cohort], tuple[Trained, Uploads, float]]


@dataclass(frozen=True)
class Fleet:
    """All devices of a run: what they train, and the defenses they apply."""

    method: Method
    defenses: Sequence[Defense]
    privacy: InteractionDP | None
    machine: Machine
    seeds: Seeds

    @classmethod
    def of(
        cls,
        plan: Plan,
        defenses: Sequence[Defense],
        machine: Machine,
        seeds: Seeds,
    ) -> "Fleet":
        """Make defenses ready for what is public of the run, and the method for them.

        Raises SettingsError where two defenses would change local training.
        """
        ready, method = [defense.prepare(plan) for defense in defenses], plan.method
        for defense in ready:
            method = defense.method(method)
        rules = [rule for d in ready if (rule := d.in_training()) is not None]
        if len(rules) > 1:
            raise SettingsError(
                "only one defense can change local training; leave the others out"
            )
        privacy = rules[0] if rules else None
        return cls(method, ready, privacy, machine, seeds)

    def shards(self, cohort: Cohort, number: int) -> Sequence[Cohort]:
        """A round's clients and their data, in shards that fit the memory budget."""
        for k, defense in enumerate(self.defenses):
            cohort = defense.on_data(cohort, self.seeds(f"data {k}", number))
        positions = self.machine.shards(
            cohort.counts,
            cohort.shape,
            self.method,
            dense=any(defense.sends_every_row() for defense in self.defenses),
        )
        whole = len(cohort.clients)
        return [part_of(cohort, at) if len(at) < whole else cohort for at in positions]

    def work(self, model: State, private: State, number: int) -> Work:
        """What the devices of a shard do, safe to run in any thread.

        It returns what training left, what is uploaded, and processor seconds.
        """
        draws = self.seeds("train", number)
        now = Round(number, draws, self.seeds("once"), self.privacy)

        def work(shard: Cohort) -> tuple[Trained, Uploads, float]:
            start = time.thread_time()
            trained = self.method.train(model, private, shard, now)
            uploads = trained.uploads
            for k, defense in enumerate(self.defenses):
                noise = self.seeds(f"upload {k}", number)
                uploads = defense.on_upload(uploads, shard.shape, noise)
            return trained, uploads, time.thread_time() - start

        return work
