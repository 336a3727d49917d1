"""The federated loop: devices, defenses, channel, server, and who watches them."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from privfed.accounting import Guarantee
from privfed.data.cohort import Cohort, cohort_of
from privfed.data.world import World
from privfed.errors import PrivfedError, SettingsError
from privfed.evaluation.judge import task_of
from privfed.evaluation.marks import Marks
from privfed.evaluation.protocol import Protocol
from privfed.evaluation.ranking import Ranking
from privfed.evaluation.task import Task
from privfed.fleet import Fleet
from privfed.interfaces import (
    Attack,
    Channel,
    Defense,
    FromTotal,
    FromUploads,
    Invites,
    LocalView,
    Method,
    NotApplicable,
    Plan,
    Trained,
    broadcast,
)
from privfed.machine import Machine, device_of, let_go
from privfed.messages import Total, Uploads, join
from privfed.sampling import Sampling
from privfed.seeds import Seeds
from privfed.state import RunState
from privfed.views import Guess, ModelView, Prior, UploadsView
from privfed.watch import Watch
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
    task: Task


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
        there = replace(setup, world=setup.world.to(device))
        loop = _Loop.of(there, machine, crew)
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
    machine: Machine
    crew: Workers
    seeds: Seeds
    fleet: Fleet
    watch: Watch
    task: Task

    @classmethod
    def of(cls, setup: Setup, machine: Machine, crew: Workers) -> "_Loop":
        world, seeds = setup.world, Seeds(setup.seed)
        if not len(world.eligible):
            raise SettingsError("no client has a training interaction; check the split")
        _refuse_channel(setup)
        if isinstance(setup.method, Invites) and setup.sampling != Sampling():
            raise SettingsError(
                "this method's server chooses the clients of a round itself; leave "
                "--sampling and what goes with it out"
            )
        plan = Plan(
            world.shape,
            setup.rounds,
            _participations(setup, seeds),
            float(world.train.counts[world.eligible].double().mean()),
            setup.method,
        )
        fleet = Fleet.of(plan, setup.defenses, machine, seeds)
        given = (*setup.channel.shows, ModelView)
        return cls(
            setup,
            machine,
            crew,
            seeds,
            fleet,
            Watch.of(setup.attacks, given, world, fleet.method.negatives, seeds),
            task_of(fleet.method, world, setup.protocol, seeds),
        )

    def start(self) -> RunState:
        world = self.setup.world
        model, private = self.fleet.method.init(world.shape, self.seeds("init"))
        return RunState(
            model,
            self.machine.home(private),
            self.watch.start(),
            Marks.none(world.validation),
            Marks.none(world.test),
            Marks.none(world.test),
        )

    def finished(self, state: RunState) -> bool:
        patience = self.setup.patience
        enough = patience > 0 and state.best.waited >= patience
        return enough or state.next >= self.setup.rounds

    def round(self, state: RunState) -> None:
        """One round, in place."""
        number, began = state.next, time.perf_counter()
        cohort = self._cohort(state)
        seen = broadcast(state.model)
        self.watch.show(state.memory, ModelView(round=number, model=seen))
        loss = self._train(state, self.fleet.shards(cohort, number))
        state.costs.uploads += len(cohort.clients)
        state.costs.rounds += 1
        state.next += 1
        if not loss < float("inf"):
            raise _diverged(state.next, f"loss {loss}")
        row = {"round": float(state.next), "loss": loss}
        last = state.next == self.setup.rounds
        if last or state.next % self.setup.protocol.every == 0:
            row |= self._evaluate(state)
        state.log.append({**row, "seconds": time.perf_counter() - began})

    def _cohort(self, state: RunState) -> Cohort:
        """The clients of the next round and what they train on."""
        world, method = self.setup.world, self.fleet.method
        if not isinstance(method, Invites):
            return self.setup.sampling.cohort(state.next, world, self.seeds)
        draws = self.seeds("cohort", state.next)
        return cohort_of(world, method.invite(state.model, world.eligible, draws))

    def _train(self, state: RunState, shards: Sequence[Cohort]) -> float:
        """Train every shard, carry its uploads, learn from them; return the loss."""
        number, costs, losses = state.next, state.costs, []
        down = self.fleet.method.bytes_down(state.model)
        sent: list[Uploads] = []  # where the server learns from every one
        opened = self.setup.channel.open(self.setup.world.shape)
        work = self.fleet.work(state.model, state.private, number)
        for shard, (trained, uploads, seconds) in zip(
            shards, self.crew.map(work, shards), strict=True
        ):
            self._keep(state, shard, trained)
            start = time.thread_time()
            opened, view = self.setup.channel.send(opened, number, uploads)
            costs.server_seconds += time.thread_time() - start
            costs.client_seconds += seconds
            costs.bytes_up += int(uploads.bytes_up(shard.shape).sum())
            costs.bytes_down += down * len(shard.clients)
            self.watch.show(state.memory, view)
            if isinstance(self.fleet.method, FromUploads):
                assert isinstance(view, UploadsView)
                sent.append(view.uploads)
            losses.append(trained.loss)
        start = time.thread_time()
        total, closing = self.setup.channel.close(opened, number)
        state.model = self._learned(state, total, sent)
        costs.server_seconds += time.thread_time() - start
        self.watch.show(state.memory, closing)
        return float(torch.cat(losses).double().mean())

    def _keep(self, state: RunState, shard: Cohort, trained: Trained) -> None:
        """Write what stays on the devices; measure it there where the view is local."""
        for name, value in trained.private.items():
            state.private[name][shard.clients] = value
        for name, rows in trained.private_rows.items():
            state.private[name][shard.clients[rows.sender], rows.item] = rows.value
        if _local_view(self.fleet.method):
            own = cohort_of(self.setup.world, shard.clients)
            local = trained.uploads.rows
            assert isinstance(self.task, Ranking)
            found = self.task.measure_locally(state.model, state.private, own, local)
            state.put(own.clients, found)
        let_go(state.private)

    def _learned(
        self, state: RunState, total: Total, sent: Sequence[Uploads]
    ) -> Mapping[str, Tensor]:
        """The model after the server's step."""
        method, number = self.fleet.method, state.next
        if isinstance(method, FromUploads):
            return method.learn(state.model, join(sent), self.seeds("server", number))
        last = len(self.fleet.defenses) - 1
        for k, defense in enumerate(reversed(self.fleet.defenses)):
            draws = self.seeds(f"total {last - k}", number)
            total = defense.on_total(total, draws)
        assert isinstance(method, FromTotal)
        return method.apply(state.model, total)

    def _evaluate(self, state: RunState) -> Mapping[str, float]:
        if not _local_view(self.fleet.method):
            self._measure_everyone(state)
        return state.judge(self.task)

    def _measure_everyone(self, state: RunState) -> None:
        model, private = state.model, state.private

        def work(clients: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            cohort = cohort_of(self.setup.world, clients)
            return clients, self.task.measure(model, private, cohort)

        try:
            for clients, found in self.crew.map(work, self.task.chunks()):
                state.put(clients, found)
                let_go(private)
        except ArithmeticError as error:
            raise _diverged(state.next, str(error)) from error

    def outcome(self, state: RunState, world: World) -> Outcome:
        """What is left, where the truth is: on the CPU."""
        state.best_test = Marks(state.best_test.value.cpu(), world.test)
        guarantees = [defense.guarantee() for defense in self.fleet.defenses]
        guesses = self.watch.guesses(state.memory)
        task = task_of(self.setup.method, world, self.setup.protocol, self.seeds)
        return Outcome(state, guesses, guarantees, self.watch.priors, task)


def _diverged(round: int, sign: str) -> PrivfedError:
    return PrivfedError(
        f"round {round}: training diverged ({sign}); lower the learning rate or, "
        "with a defense, its noise"
    )


def _local_view(method: Method) -> bool:
    return isinstance(method, LocalView) and method.local_view


def _participations(setup: Setup, seeds: Seeds) -> int:
    """The most rounds that any one client takes part in."""
    if isinstance(setup.method, Invites):
        return setup.rounds
    return setup.sampling.participations(setup.rounds, setup.world, seeds)


def _refuse_channel(setup: Setup) -> None:
    """Raise SettingsError where the server cannot see what the method needs."""
    if not isinstance(setup.method, FromUploads):
        return
    if not any(issubclass(view, UploadsView) for view in setup.channel.shows):
        raise SettingsError(
            "this method's server needs single uploads, which this channel hides; "
            "take --defense plain or another method"
        )
    for defense in setup.defenses:
        if type(defense).on_total is not Defense.on_total:
            raise SettingsError(
                f"{type(defense).__name__} works on the total, and this method's "
                "server learns from single uploads; leave one of them out"
            )
