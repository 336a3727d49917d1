"""The federated loop: devices, defenses, channel, server, and who watches them."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from torch import Tensor

from privfed.accounting import Guarantee
from privfed.data.cohort import Cohort, cohort_of, part_of
from privfed.data.world import World
from privfed.errors import PrivfedError, SettingsError
from privfed.evaluation import Protocol, Ranks, ranks
from privfed.interfaces import (
    START,
    Attack,
    Channel,
    Defense,
    Method,
    NotApplicable,
    Plan,
    Round,
    Trained,
)
from privfed.machine import Machine, device_of, let_go
from privfed.messages import Rows, Uploads
from privfed.sampling import Sampling
from privfed.seeds import Seeds
from privfed.state import Best, RunState
from privfed.views import Guess, ModelView, Prior, View
from privfed.workers import Workers, workers

Progress = Callable[[int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Setup:
    """One run: everything that its result depends on.

    ``patience`` counts evaluations without a better validation figure after which
    the run stops early; 0 never stops.
    """

    world: World
    method: Method
    channel: Channel
    defenses: Sequence[Defense] = ()
    attacks: Mapping[str, Attack] = field(default_factory=dict)
    sampling: Sampling = field(default_factory=Sampling)
    protocol: Protocol = field(default_factory=Protocol)
    rounds: int = 30
    patience: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Keeping:
    """Where and how often a run saves itself; ``resume`` goes on from there."""

    path: Path
    every: int = 10
    resume: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a run left behind. Metrics compare it with the truth."""

    state: RunState
    guesses: Mapping[str, Guess | NotApplicable]
    guarantees: Sequence[Guarantee]  # by defense
    priors: Mapping[str, Prior]


def run(
    setup: Setup,
    machine: Machine = Machine(),  # noqa: B008 - frozen
    keeping: Keeping | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Train, watch and measure.

    Raises SettingsError where the parts do not fit together or the budget.
    """
    device = device_of(machine.device)
    with workers(machine.workers, device) as crew:
        loop = _Loop.of(setup, machine, crew)
        state = loop.start()
        if keeping and keeping.resume and keeping.path.exists():
            state.restore(keeping.path, machine.device)
        while not loop.finished(state):
            loop.round(state)
            if progress:
                progress(state.next, setup.rounds, state.log[-1])
            if keeping and (state.next % keeping.every == 0 or loop.finished(state)):
                state.save(keeping.path)
        return loop.outcome(state)


@dataclass(frozen=True)
class _Loop:
    """What stays fixed from the first round to the last."""

    setup: Setup
    machine: Machine
    crew: Workers
    seeds: Seeds
    method: Method
    defenses: Sequence[Defense]
    eligible: Tensor
    priors: Mapping[str, Prior]
    refused: Mapping[str, NotApplicable]
    candidates: Tensor | None

    @classmethod
    def of(cls, setup: Setup, machine: Machine, crew: Workers) -> "_Loop":
        world, seeds = setup.world, Seeds(setup.seed)
        eligible = world.train.counts.nonzero()[:, 0]
        if not len(eligible):
            raise SettingsError("no client has a training interaction; check the split")
        plan = Plan(
            world.shape,
            setup.rounds,
            setup.sampling.participations(setup.rounds, eligible, seeds),
            len(world.train.item) / len(eligible),
            setup.method,
        )
        defenses = [defense.prepare(plan) for defense in setup.defenses]
        method = setup.method
        for defense in defenses:
            method = defense.method(method)
        given = (*setup.channel.shows, ModelView)
        refused = {
            name: reason
            for name, attack in setup.attacks.items()
            if (reason := _refusal(attack, given))
        }
        priors = {
            name: _prior(name, attack, world, method, seeds)
            for name, attack in setup.attacks.items()
        }
        candidates = setup.protocol.candidates(world, seeds)
        return cls(
            setup, machine, crew, seeds, method, defenses, eligible, priors, refused,
            candidates,
        )  # fmt: skip

    def start(self) -> RunState:
        world = self.setup.world
        model, private = self.method.init(world.shape, self.seeds("init"))
        memory = {
            name: attack.start(self.priors[name])
            for name, attack in self.setup.attacks.items()
            if name not in self.refused
        }
        return RunState(
            model,
            self.machine.home(private),
            memory,
            Ranks.none(world.validation),
            Ranks.none(world.test),
            Ranks.none(world.test),
        )

    def finished(self, state: RunState) -> bool:
        patience = self.setup.patience
        enough = patience > 0 and state.best.waited >= patience
        return enough or state.next >= self.setup.rounds

    def round(self, state: RunState) -> None:
        """One round, in place."""
        number, began = state.next, time.perf_counter()
        clients = self.setup.sampling.cohort(number, self.eligible, self.seeds)
        shards = self._shards(clients, number)
        self._show(state, ModelView(round=number, model=state.model))
        opened = self.setup.channel.open(self.setup.world.shape)
        losses = []
        work = self._work(state, number)
        for shard, (trained, uploads, seconds) in zip(
            shards, self.crew.map(work, shards), strict=True
        ):
            self._keep(state, shard, trained)
            let_go(state.private)
            start = time.thread_time()
            opened, view = self.setup.channel.send(opened, number, uploads)
            state.costs.server_seconds += time.thread_time() - start
            self._show(state, view)
            losses.append(trained.loss)
            state.costs.client_seconds += seconds
            state.costs.bytes_up += int(
                uploads.bytes_up(self.setup.world.shape.items).sum()
            )
        start = time.thread_time()
        total, view = self.setup.channel.close(opened, number)
        for defense in reversed(self.defenses):
            total = defense.on_total(total, self.seeds("defense", number))
        sent = _model_bytes(state.model)
        state.model = self.method.apply(state.model, total)
        state.costs.server_seconds += time.thread_time() - start
        self._show(state, view)
        state.costs.uploads += len(clients)
        state.costs.bytes_down += sent * len(clients)
        state.costs.rounds += 1
        state.next += 1
        loss = float(torch.cat(losses).double().mean())
        if not loss < float("inf"):
            raise PrivfedError(
                f"round {state.next}: training diverged (loss {loss}); lower the "
                "learning rate or, with a defense, its noise"
            )
        entry = {"round": float(state.next), "loss": loss}
        if state.next % self.setup.protocol.every == 0 or (
            state.next == self.setup.rounds
        ):
            entry |= self._evaluate(state)
        entry["seconds"] = time.perf_counter() - began
        state.log.append(entry)

    def _shards(self, clients: Tensor, number: int) -> Sequence[Cohort]:
        cohort = cohort_of(self.setup.world, clients)
        for k, defense in enumerate(self.defenses):
            cohort = defense.on_data(cohort, self.seeds(f"data {k}", number))
        positions = self.machine.shards(
            cohort.counts,
            cohort.shape,
            self.method,
            dense=any(defense.sends_every_row() for defense in self.defenses),
        )
        return [part_of(cohort, at) for at in positions]

    def _work(
        self, state: RunState, number: int
    ) -> Callable[[Cohort], tuple[Trained, Uploads, float]]:
        """The devices' side of a round, safe to run in any thread."""
        rules = [r for d in self.defenses if (r := d.in_training()) is not None]
        if len(rules) > 1:
            raise SettingsError("only one defense can change local training")
        now = Round(
            number,
            self.seeds("train", number),
            self.seeds("once"),
            rules[0] if rules else None,
        )
        model, private = state.model, state.private

        def work(shard: Cohort) -> tuple[Trained, Uploads, float]:
            start = time.thread_time()
            trained = self.method.train(model, private, shard, now)
            uploads = trained.uploads
            for k, defense in enumerate(self.defenses):
                draws = self.seeds(f"upload {k}", number)
                uploads = defense.on_upload(uploads, shard.shape, draws)
            return trained, uploads, time.thread_time() - start

        return work

    def _keep(self, state: RunState, shard: Cohort, trained: Trained) -> None:
        """Write what stays on the devices; measure it there where the view is local."""
        for name, value in trained.private.items():
            state.private[name][shard.clients] = value
        for name, rows in trained.private_rows.items():
            state.private[name][shard.clients[rows.sender], rows.item] = rows.value
        if self.method.view == "local":
            own = cohort_of(self.setup.world, shard.clients)
            local: Mapping[str, Rows] = trained.uploads.rows
            scores = self.method.score(state.model, state.private, own, local)
            self._put(state, own, scores)

    def _put(self, state: RunState, cohort: Cohort, scores: Tensor) -> None:
        for part in (state.validation, state.test):
            part.put(cohort.clients, ranks(scores, cohort, part.held, self.candidates))

    def _show(self, state: RunState, view: View) -> None:
        for name, memory in state.memory.items():
            attack = self.setup.attacks[name]
            for seen in attack.sees:
                if isinstance(view, seen):
                    state.memory[name] = attack.observe(memory, narrow(view, seen))
                    break

    def _evaluate(self, state: RunState) -> dict[str, float]:
        if self.method.view == "global":
            self._score_everyone(state)
        at = self.setup.protocol.at
        validation = _means(state.validation, at)
        test = _means(state.test, at)
        key = f"ndcg@{at[0]}"
        value = validation.get(key, float(state.next))  # without validation: the last
        if value > state.best.value:
            state.best = Best(state.next, value)
            state.best_test.rank.copy_(state.test.rank)
        else:
            state.best.waited += 1
        return {f"validation.{n}": v for n, v in validation.items()} | {
            f"utility.{n}": v for n, v in test.items()
        }

    def _score_everyone(self, state: RunState) -> None:
        world, model, private = self.setup.world, state.model, state.private
        held = world.validation.counts + world.test.counts
        need = self.method.footprint(world.shape, world.shape.items)
        chunk = max(1, min(_SCORED, _SCORING_BYTES // need))

        def work(clients: Tensor) -> tuple[Cohort, Tensor, Tensor]:
            cohort = cohort_of(world, clients)
            scores = self.method.score(model, private, cohort)
            validation, test = (
                ranks(scores, cohort, part, self.candidates)
                for part in (world.validation, world.test)
            )
            return cohort, validation, test

        for cohort, validation, test in self.crew.map(
            work, torch.split(held.nonzero()[:, 0], chunk)
        ):
            state.validation.put(cohort.clients, validation)
            state.test.put(cohort.clients, test)
            let_go(private)

    def outcome(self, state: RunState) -> Outcome:
        guesses: dict[str, Guess | NotApplicable] = dict(self.refused)
        for name, memory in state.memory.items():
            guesses[name] = self.setup.attacks[name].guess(memory, self.priors[name])
        guarantees = [defense.guarantee() for defense in self.defenses]
        return Outcome(state, guesses, guarantees, self.priors)


_SCORED = 512  # clients scored at a time; fixed, so that no result depends on memory
_SCORING_BYTES = 2**28


def narrow(view: View, kind: type[View]) -> View:
    """The view as ``kind`` and nothing more."""
    return kind(**{f.name: getattr(view, f.name) for f in fields(kind)})


def _refusal(attack: Attack, given: Sequence[type[View]]) -> NotApplicable | None:
    if any(issubclass(shown, seen) for shown in given for seen in attack.sees):
        return None
    needs = " or ".join(seen.__name__ for seen in attack.sees)
    has = ", ".join(shown.__name__ for shown in given)
    return NotApplicable(f"needs {needs}; this channel shows {has}")


def _prior(
    name: str, attack: Attack, world: World, method: Method, seeds: Seeds
) -> Prior:
    knows = attack.knows
    return Prior(
        world.shape.clients,
        world.shape.items,
        seeds(f"attack {name}"),
        method.negatives,
        world.popularity if knows.popularity else None,
        world.features if knows.features else {},
    )


def _means(measured: Ranks, at: Sequence[int]) -> dict[str, float]:
    each = measured.per_client(at)
    return {n: float(v.double().mean()) for n, v in each.items() if len(v)}


def _model_bytes(model: Mapping[str, Tensor]) -> int:
    """Bytes of the model that each client of a round receives."""
    return sum(
        value.numel() * value.element_size()
        for name, value in model.items()
        if not name.endswith(START)  # follows from a public seed: never sent
    )
