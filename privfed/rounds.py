"""The federated loop: devices, defenses, channel, server, and who watches them."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from privfed.accounting.guarantee import Guarantee
from privfed.adversary import Attack, Prior
from privfed.catalog import name_of
from privfed.data.cohort import Cohort, cohort_of
from privfed.data.world import World
from privfed.errors import PrivfedError, SettingsError
from privfed.evaluation.exposure import Exposure
from privfed.evaluation.judge import task_of
from privfed.evaluation.marks import Marks
from privfed.evaluation.protocol import Protocol
from privfed.evaluation.task import Task
from privfed.fit import check
from privfed.fleet import Fleet
from privfed.interfaces import (
    Channel,
    Defense,
    Invites,
    Method,
    Plan,
    broadcast,
)
from privfed.machine import Machine, device_of, keep_freed_memory, let_go
from privfed.party import Gang, Party
from privfed.poisoning import Plot
from privfed.sampling import Sampling
from privfed.seeds import Seeds
from privfed.state import RunState
from privfed.training import Training, is_local
from privfed.views import ModelView, ServerView
from privfed.watch import Claims, Watch
from privfed.workers import Workers, workers

Progress = Callable[[float, int, Mapping[str, float]], None]


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
    party: Party | None = None  # malicious clients


@dataclass(frozen=True)
class Keeping:
    """Where and how often a run saves itself; ``resume`` goes on from there."""

    path: Path
    every: int = 10
    resume: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a run left behind. Metrics compare it with the truth.

    ``world`` is the one it ran in, malicious clients included; ``plot`` is what a
    poisoner had.
    """

    world: World
    state: RunState
    guesses: Claims
    guarantees: Sequence[Guarantee]  # by defense
    carried: Guarantee | None  # by the channel
    priors: Mapping[str, Prior]
    task: Task
    plot: Plot | None = None


def run(
    setup: Setup,
    machine: Machine = Machine(),  # noqa: B008 - frozen
    keeping: Keeping | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Train, watch and measure.

    ``progress`` is told the rounds done, of how many, and what a round measured;
    between rounds it is told parts of one, and no measurement. Raises SettingsError
    where the parts do not fit together or the budget.
    """
    device = device_of(machine.device)
    keep_freed_memory()
    if setup.party:
        _refuse_party(setup)
        count = setup.party.count(setup.world)
        setup = replace(setup, world=setup.world.joined_by(count))
    with ExitStack() as opened:
        crew = opened.enter_context(workers(machine.workers, device))
        there = replace(setup, world=setup.world.to(device))
        seeds = Seeds(setup.seed)
        plan = _plan(there, seeds)
        fleet = Fleet.of(plan, setup.defenses, setup.channel, machine, seeds)
        check(setup.method, setup.defenses, fleet.defenses, setup.channel)
        channel = opened.enter_context(setup.channel.ready(plan))
        there = replace(there, channel=channel)
        loop = _Loop.of(there, fleet, crew, progress)
        state = loop.start()
        if keeping and keeping.resume and keeping.path.exists():
            state.restore(keeping.path, machine.device)
        while not loop.finished(state):
            loop.round(state)
            if progress:
                progress(state.next, setup.rounds, state.log[-1])
            if keeping and (state.next % keeping.every == 0 or loop.finished(state)):
                state.save(keeping.path)
        return loop.outcome(state, setup.world)


@dataclass(frozen=True)
class _Loop:
    """What stays fixed from the first round to the last."""

    setup: Setup
    training: Training

    @classmethod
    def of(
        cls, setup: Setup, fleet: Fleet, crew: Workers, progress: Progress | None
    ) -> "_Loop":
        world, seeds = setup.world, fleet.seeds
        given = (*setup.channel.shows, ModelView, ServerView)
        gang = None
        if setup.party:
            gang = Gang.of(setup.party, world, fleet.method, fleet.defenses, seeds)

        def tell(done: float) -> None:
            if progress and not done.is_integer():  # a round's end has its figures
                progress(done, setup.rounds, {})

        training = Training(
            world,
            fleet,
            setup.channel,
            crew,
            Watch.of(setup.attacks, given, world, fleet.method, fleet.defenses, seeds),
            task_of(fleet.method, world, setup.protocol, seeds, _exposure(world, gang)),
            gang,
            tell,
        )
        return cls(setup, training)

    def start(self) -> RunState:
        world, fleet = self.setup.world, self.training.fleet
        held, gang = self.training.task.held(), self.training.gang
        model, private = fleet.method.init(world.shape, fleet.seeds("init"))
        return RunState(
            model,
            fleet.machine.home(private),
            self.training.watch.start(),
            fleet.start(),
            {name: Marks.none(pairs) for name, pairs in held.items()},
            Marks.none(world.test),
            torch.zeros(world.shape.clients, dtype=torch.bool),
            gang.start() if gang else {},
        )

    @property
    def _malicious(self) -> bool:
        return self.setup.world.malicious > 0

    def finished(self, state: RunState) -> bool:
        patience = self.setup.patience
        enough = patience > 0 and state.best.waited >= patience
        return enough or state.next >= self.setup.rounds

    def round(self, state: RunState) -> None:
        """One round, in place."""
        number, began = state.next, time.perf_counter()
        cohort = self._cohort(state)
        row = {"round": float(number + 1)}
        try:
            loss = self.training.round(state, cohort)
        except ArithmeticError as error:
            raise _diverged(number + 1, str(error), self._malicious) from error
        if loss is not None:
            row["loss"] = loss
            if not loss < float("inf"):
                raise _diverged(number + 1, f"loss {loss}", self._malicious)
        state.costs.uploads += len(cohort.clients)
        state.costs.rounds += 1
        state.next += 1
        last = state.next == self.setup.rounds
        if last or state.next % self.setup.protocol.every == 0:
            row |= self._evaluate(state)
        state.log.append({**row, "seconds": time.perf_counter() - began})

    def _cohort(self, state: RunState) -> Cohort:
        """The clients of the next round and what they train on."""
        world, fleet = self.setup.world, self.training.fleet
        if not isinstance(fleet.method, Invites):
            return self.setup.sampling.cohort(state.next, world, fleet.seeds)
        draws = fleet.seeds("cohort", state.next)
        invited = fleet.method.invite(state.model, world.eligible, draws)
        return cohort_of(world, invited)

    def _evaluate(self, state: RunState) -> Mapping[str, float]:
        if not is_local(self.training.fleet.method):
            self._measure_everyone(state)
        return state.judge(self.training.task)

    def _measure_everyone(self, state: RunState) -> None:
        model, private, task = state.model, state.private, self.training.task

        def work(clients: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
            cohort = cohort_of(self.setup.world, clients)
            return clients, task.measure(model, private, cohort)

        try:
            for clients, found in self.training.crew.map(work, task.chunks()):
                state.put(clients, found)
                let_go(private)
        except ArithmeticError as error:
            raise _diverged(state.next, str(error), self._malicious) from error

    def outcome(self, state: RunState, world: World) -> Outcome:
        """What is left, where the truth is: on the CPU."""
        gang, fleet, watch = (
            self.training.gang,
            self.training.fleet,
            self.training.watch,
        )
        seeds, exposure = fleet.seeds, _exposure(world, gang)
        task = task_of(self.setup.method, world, self.setup.protocol, seeds, exposure)
        held = task.held()
        state.marks = {
            name: Marks(marks.value.cpu(), held[name])
            for name, marks in state.marks.items()
        }
        state.best_test = Marks(state.best_test.value.cpu(), world.test)
        final = ModelView(round=state.next, model=broadcast(state.model))
        self.training.show(state, final)
        return Outcome(
            world,
            state,
            watch.guesses(state.memory, state.costs.attacks),
            [defense.guarantee() for defense in fleet.defenses],
            self.setup.channel.guarantee(),
            watch.priors,
            task,
            None if gang is None else gang.plot,
        )


def _exposure(world: World, gang: Gang | None) -> Exposure | None:
    if gang is None or not len(gang.plot.targets):
        return None
    return Exposure.of(world, gang.plot.targets.to(world.train.item.device))


def _refuse_party(setup: Setup) -> None:
    """Raise SettingsError where malicious clients would never take part."""
    if setup.sampling.kind == "interactions":
        raise SettingsError(
            "--sampling interactions never takes clients without honest interactions, "
            "so malicious ones would not take part; take --sampling uniform"
        )


def _diverged(round: int, sign: str, malicious: bool) -> PrivfedError:
    mend = "lower the learning rate or, with a defense, its noise"
    if malicious:
        mend += ", or bound what malicious clients send: --defense norm_bound"
    return PrivfedError(f"round {round}: training diverged ({sign}); {mend}")


def _plan(setup: Setup, seeds: Seeds) -> Plan:
    """What is public of a run. Raises SettingsError where its parts do not fit."""
    world = setup.world
    honest = world.eligible[world.eligible < world.honest]
    if not len(honest):
        raise SettingsError("no client has a training interaction; check the split")
    if isinstance(setup.method, Invites) and setup.sampling != Sampling():
        raise SettingsError(
            f"{name_of(setup.method)}: its server chooses the clients of a round "
            "itself; leave --sampling and what goes with it out"
        )
    return Plan(
        world.shape,
        setup.rounds,
        _participations(setup, seeds),
        float(world.train.counts[honest].double().mean()),
        setup.method,
        len(world.eligible),
        setup.sampling,
    )


def _participations(setup: Setup, seeds: Seeds) -> int:
    """The most rounds that any one client takes part in."""
    if isinstance(setup.method, Invites):
        return setup.rounds
    return setup.sampling.participations(setup.rounds, setup.world, seeds)
