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
from privfed.evaluation import Evaluation, Protocol, Ranks
from privfed.fleet import Fleet
from privfed.interfaces import (
    START,
    Attack,
    Channel,
    Defense,
    Method,
    NotApplicable,
    Plan,
    Trained,
)
from privfed.machine import Machine, device_of, let_go
from privfed.messages import Total
from privfed.sampling import Sampling
from privfed.seeds import Seeds
from privfed.state import RunState
from privfed.views import Guess, ModelView, Prior, View
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
    eligible: Tensor  # clients that have something to train on
    fleet: Fleet
    watch: Watch
    evaluation: Evaluation

    @classmethod
    def of(cls, setup: Setup, machine: Machine, crew: Workers) -> "_Loop":
        world, seeds = setup.world, Seeds(setup.seed)
        eligible = world.train.counts.nonzero()[:, 0]
        if not len(eligible):
            raise SettingsError("no client has a training interaction; check the split")
        participations = setup.sampling.participations(setup.rounds, eligible, seeds)
        plan = Plan(
            world.shape,
            setup.rounds,
            participations,
            len(world.train.item) / len(eligible),
            setup.method,
        )
        fleet = Fleet.of(world, plan, setup.defenses, machine, seeds)
        given = (*setup.channel.shows, ModelView)
        return cls(
            setup,
            machine,
            crew,
            seeds,
            eligible,
            fleet,
            Watch.of(setup.attacks, given, world, fleet.method.negatives, seeds),
            Evaluation(world, setup.protocol.candidates(world, seeds)),
        )

    def start(self) -> RunState:
        world = self.setup.world
        model, private = self.fleet.method.init(world.shape, self.seeds("init"))
        return RunState(
            model,
            self.machine.home(private),
            self.watch.start(),
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
        self.watch.show(state.memory, ModelView(round=number, model=state.model))
        total, view, loss = self._gather(state, self.fleet.shards(clients, number))
        self._learn(state, total, len(clients))
        self.watch.show(state.memory, view)
        state.next += 1
        if not loss < float("inf"):
            raise _diverged(state.next, f"loss {loss}")
        row = {"round": float(state.next), "loss": loss}
        last = state.next == self.setup.rounds
        if last or state.next % self.setup.protocol.every == 0:
            row |= self._evaluate(state)
        state.log.append({**row, "seconds": time.perf_counter() - began})

    def _gather(
        self, state: RunState, shards: Sequence[Cohort]
    ) -> tuple[Total, View, float]:
        """Train every shard and carry its uploads; return total, view and mean loss."""
        number, costs, losses = state.next, state.costs, []
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
            sent = uploads.bytes_up(self.setup.world.shape.items)
            costs.bytes_up += int(sent.sum())
            self.watch.show(state.memory, view)
            losses.append(trained.loss)
        start = time.thread_time()
        total, closing = self.setup.channel.close(opened, number)
        costs.server_seconds += time.thread_time() - start
        return total, closing, float(torch.cat(losses).double().mean())

    def _keep(self, state: RunState, shard: Cohort, trained: Trained) -> None:
        """Write what stays on the devices; measure it there where the view is local."""
        for name, value in trained.private.items():
            state.private[name][shard.clients] = value
        for name, rows in trained.private_rows.items():
            state.private[name][shard.clients[rows.sender], rows.item] = rows.value
        if self.fleet.method.view == "local":
            own = cohort_of(self.setup.world, shard.clients)
            local = trained.uploads.rows
            scores = self.fleet.method.score(state.model, state.private, own, local)
            state.put(own.clients, self.evaluation.ranks(scores, own))
        let_go(state.private)

    def _learn(self, state: RunState, total: Total, clients: int) -> None:
        start = time.thread_time()
        last = len(self.fleet.defenses) - 1
        for k, defense in enumerate(reversed(self.fleet.defenses)):
            draws = self.seeds(f"total {last - k}", state.next)
            total = defense.on_total(total, draws)
        state.costs.bytes_down += _model_bytes(state.model) * clients
        state.model = self.fleet.method.apply(state.model, total)
        state.costs.server_seconds += time.thread_time() - start
        state.costs.uploads += clients
        state.costs.rounds += 1

    def _evaluate(self, state: RunState) -> Mapping[str, float]:
        if self.fleet.method.view == "global":
            self._score_everyone(state)
        return state.judge(self.setup.protocol.at)

    def _score_everyone(self, state: RunState) -> None:
        method, model, private = self.fleet.method, state.model, state.private

        def work(clients: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            cohort = cohort_of(self.setup.world, clients)
            scores = method.score(model, private, cohort)
            return clients, self.evaluation.ranks(scores, cohort)

        chunks = self.evaluation.chunks(method)
        try:
            for clients, found in self.crew.map(work, chunks):
                state.put(clients, found)
                let_go(private)
        except ArithmeticError as error:
            raise _diverged(state.next, str(error)) from error

    def outcome(self, state: RunState, world: World) -> Outcome:
        """What is left, where the truth is: on the CPU."""
        state.best_test = Ranks(state.best_test.rank.cpu(), world.test)
        guarantees = [defense.guarantee() for defense in self.fleet.defenses]
        guesses = self.watch.guesses(state.memory)
        return Outcome(state, guesses, guarantees, self.watch.priors)


def _diverged(round: int, sign: str) -> PrivfedError:
    return PrivfedError(
        f"round {round}: training diverged ({sign}); lower the learning rate or, "
        "with a defense, its noise"
    )


def _model_bytes(model: Mapping[str, Tensor]) -> int:
    """Bytes of the model that each client of a round receives."""
    return sum(
        value.numel() * value.element_size()
        for name, value in model.items()
        if not name.endswith(START)  # follows from a public seed: never sent
    )
