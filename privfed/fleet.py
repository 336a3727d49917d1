"""The devices' side of a round: local training and what defenses do there."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from privfed.data.cohort import Cohort, part_of
from privfed.interfaces import (
    Channel,
    Defense,
    Method,
    Plan,
    Rater,
    Round,
    State,
    Trained,
    Turn,
    broadcast,
)
from privfed.machine import Machine
from privfed.messages import Total, Uploads
from privfed.seeds import Seeds


@dataclass(frozen=True)
class Now:
    """What a round begins with; ``kept`` is each defense's memory."""

    number: int
    model: State
    private: State
    kept: Mapping[str, State]


@dataclass(frozen=True)
class Devices:
    """What devices do in one round; safe to run in any thread."""

    method: Method
    now: Now
    here: Round
    chain: Sequence[tuple[Defense, Turn]]

    def train(self, shard: Cohort) -> Trained:
        """What local training leaves behind."""
        return self.method.train(self.now.model, self.now.private, shard, self.here)

    def guarded(self, uploads: Uploads) -> Uploads:
        """Uploads after every defense's step on the devices."""
        for defense, turn in self.chain:
            uploads = defense.on_upload(uploads, turn)
        return uploads

    def work(self, shard: Cohort) -> tuple[Trained, Uploads, float]:
        """What training left, what is uploaded, and processor seconds."""
        start = time.thread_time()
        trained = self.train(shard)
        uploads = self.guarded(trained.uploads)
        return trained, uploads, time.thread_time() - start


@dataclass(frozen=True)
class Fleet:
    """All devices of a run: what they train, and the defenses they apply."""

    method: Method
    defenses: Sequence[Defense]
    machine: Machine
    seeds: Seeds
    whole: bool  # whether whole tables leave the devices

    @classmethod
    def of(
        cls,
        plan: Plan,
        defenses: Sequence[Defense],
        channel: Channel,
        machine: Machine,
        seeds: Seeds,
    ) -> "Fleet":
        """Make defenses ready for what is public of a run, and its method for them."""
        ready, method = [defense.prepare(plan) for defense in defenses], plan.method
        for defense in ready:
            method = defense.method(method)
        parts: Sequence[Defense | Channel] = [*ready, channel]
        whole = any(part.sends_every_row() for part in parts)
        return cls(method, ready, machine, seeds, whole)

    def start(self) -> dict[str, State]:
        """Every defense's memory before the first round, by its place in the chain."""
        return {str(k): defense.start() for k, defense in enumerate(self.defenses)}

    def shards(self, cohort: Cohort, now: Now) -> Sequence[Cohort]:
        """A round's clients and their data, in shards that fit the memory budget."""
        for k, defense in enumerate(self.defenses):
            turn = self._turn("data", k, cohort, now)
            if isinstance(self.method, Rater):
                predict = partial(self.method.predict, now.model, now.private)
                turn = replace(turn, predict=predict)
            cohort = defense.on_data(cohort, turn)
        positions = self.machine.shards(
            cohort.counts, cohort.shape, self.method, dense=self.whole
        )
        count = len(cohort.clients)
        return [part_of(cohort, at) if len(at) < count else cohort for at in positions]

    def devices(self, now: Now, cohort: Cohort) -> "Devices":
        """The devices of a round, ready to work."""
        turns = [
            self._turn("upload", k, cohort, now) for k in range(len(self.defenses))
        ]
        chain = list(zip(self.defenses, turns, strict=True))
        terms = [defense.penalty(turn) for defense, turn in chain]
        rules = [defense.in_training() for defense in self.defenses]
        here = Round(
            now.number,
            self.seeds("train", now.number),
            self.seeds("once"),
            next((rule for rule in rules if rule is not None), None),
            [term for term in terms if term is not None],
        )
        return Devices(self.method, now, here, chain)

    def combine(
        self, total: Total, cohort: Cohort, now: Now
    ) -> tuple[Total, dict[str, State]]:
        """The total after every defense's step, and what each remembers of it."""
        kept = dict(now.kept)
        for k, defense in reversed([*enumerate(self.defenses)]):
            turn = self._turn("total", k, cohort, now)
            kept[str(k)] = defense.learn(total, turn)
            total = defense.on_total(total, turn)
        return total, kept

    def _turn(self, step: str, place: int, cohort: Cohort, now: Now) -> Turn:
        return Turn(
            now.number,
            cohort.shape,
            self.seeds(f"{step} {place}", now.number),
            now.kept.get(str(place), {}),
            broadcast(now.model),
        )
