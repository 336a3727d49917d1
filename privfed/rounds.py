"""The federated loop: devices, defenses, channel, server, and who watches them."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from privfed.accounting.guarantee import Guarantee
from privfed.adversary import Attack, Prior
from privfed.catalog import name_of
from privfed.data.cohort import Cohort, cohort_of, part_of
from privfed.data.world import World
from privfed.errors import PrivfedError, SettingsError
from privfed.evaluation.exposure import Exposure
from privfed.evaluation.judge import task_of
from privfed.evaluation.marks import Marks
from privfed.evaluation.protocol import Protocol
from privfed.evaluation.ranking import Ranking
from privfed.evaluation.task import Task
from privfed.fit import check
from privfed.fleet import Devices, Fleet, Now
from privfed.interfaces import (
    Channel,
    Defense,
    Delivered,
    FromTotal,
    FromUploads,
    Invites,
    LocalView,
    Method,
    Plan,
    Trained,
    broadcast,
)
from privfed.machine import Machine, device_of, let_go
from privfed.messages import Spent, Uploads, join, reordered
from privfed.party import Gang, Party
from privfed.poisoning import Plot, Sortie
from privfed.road import Road
from privfed.sampling import Sampling
from privfed.seeds import Seeds
from privfed.state import RunState
from privfed.views import ModelView, ServerView, UploadsView, View
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
    fleet: Fleet
    crew: Workers
    watch: Watch
    task: Task
    gang: Gang | None
    progress: Progress | None

    @classmethod
    def of(
        cls, setup: Setup, fleet: Fleet, crew: Workers, progress: Progress | None
    ) -> "_Loop":
        world, seeds = setup.world, fleet.seeds
        given = (*setup.channel.shows, ModelView, ServerView)
        gang = None
        if setup.party:
            gang = Gang.of(setup.party, world, fleet.method, fleet.defenses, seeds)
        return cls(
            setup,
            fleet,
            crew,
            Watch.of(setup.attacks, given, world, fleet.method, fleet.defenses, seeds),
            task_of(fleet.method, world, setup.protocol, seeds, _exposure(world, gang)),
            gang,
            progress,
        )

    def start(self) -> RunState:
        world, held = self.setup.world, self.task.held()
        model, private = self.fleet.method.init(world.shape, self.fleet.seeds("init"))
        return RunState(
            model,
            self.fleet.machine.home(private),
            self.watch.start(),
            self.fleet.start(),
            {name: Marks.none(pairs) for name, pairs in held.items()},
            {name: Marks.none(held[name]) for name in held if name != "validation"},
            torch.zeros(world.shape.clients, dtype=torch.bool),
            self.gang.start() if self.gang else {},
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
        self._show(state, ModelView(round=number, model=seen))
        self._show(state, ServerView(round=number, model=state.model))
        state.took_part[cohort.clients] = True
        row = {"round": float(number + 1)}
        if len(cohort.clients):  # a Poisson cohort may be empty
            loss = self._train(state, cohort)
            if loss is not None:
                row["loss"] = loss
            if loss is not None and not loss < float("inf"):
                raise _diverged(number + 1, f"loss {loss}")
        state.costs.uploads += len(cohort.clients)
        state.costs.rounds += 1
        state.next += 1
        last = state.next == self.setup.rounds
        if last or state.next % self.setup.protocol.every == 0:
            row |= self._evaluate(state)
        state.log.append({**row, "seconds": time.perf_counter() - began})

    def _cohort(self, state: RunState) -> Cohort:
        """The clients of the next round and what they train on."""
        world, method = self.setup.world, self.fleet.method
        if not isinstance(method, Invites):
            return self.setup.sampling.cohort(state.next, world, self.fleet.seeds)
        draws = self.fleet.seeds("cohort", state.next)
        return cohort_of(world, method.invite(state.model, world.eligible, draws))

    def _train(self, state: RunState, cohort: Cohort) -> float | None:
        """Train everybody, carry the uploads, learn from them.

        Returns the honest clients' loss, None where there are none.
        """
        world, method = self.setup.world, self.fleet.method
        now = Now(state.next, state.model, state.private, state.kept)
        road = Road.open(self.setup.channel, now.number, cohort, self.fleet.seeds)
        devices = self.fleet.devices(now, cohort)
        honest, malicious = _sides(cohort, world.honest)
        keeps = isinstance(method, FromUploads) or self._listens
        sent: list[Uploads] = []  # where somebody needs every one
        losses = []
        for trained, uploads in self._trained(state, devices, honest, cohort):
            self._show(state, road.send(uploads))
            sent += [uploads] if keeps else []
            losses.append(trained.loss)
        if self.gang and len(malicious.clients):
            uploads = self._forged(state, devices, malicious, sent)
            self._show(state, road.send(uploads))
            sent += [uploads] if keeps else []
        self._learn(state, road.close(), sent, cohort, now)
        down = method.bytes_down(now.model) * len(cohort.clients)
        state.costs.add(Spent(bytes_down=down))
        return float(torch.cat(losses).double().mean()) if losses else None

    @property
    def _listens(self) -> bool:
        """Whether a poisoner hears what all others send."""
        return self.gang is not None and self.gang.poisoner.knows.uploads

    def _trained(
        self, state: RunState, devices: Devices, honest: Cohort, cohort: Cohort
    ) -> Iterator[tuple[Trained, Uploads]]:
        """Honest clients by shards: what training left, and what is uploaded."""
        if not len(honest.clients):
            return
        shards = self.fleet.shards(honest, devices.now)
        done = 0
        for shard, (trained, uploads, seconds) in zip(
            shards, self.crew.map(devices.work, shards), strict=True
        ):
            self._keep(state, shard, trained, measured=True)
            self._count(state, trained.uploads, malicious=False)
            state.costs.add(Spent(client_seconds=seconds))
            yield trained, uploads
            done += len(shard.clients)
            self._tell(devices.now.number + done / len(cohort.clients))

    def _forged(
        self,
        state: RunState,
        devices: Devices,
        malicious: Cohort,
        sent: Sequence[Uploads],
    ) -> Uploads:
        """What malicious clients upload, after the steps of everybody's devices."""
        gang, start = self.gang, time.thread_time()
        assert gang is not None
        clients, number = malicious.clients, state.next
        own = {name: value[clients].clone() for name, value in state.private.items()}
        shards = self.fleet.shards(gang.devices(malicious), devices.now)
        parts = []
        for shard in shards:
            trained = devices.train(shard)
            self._keep(state, shard, trained, measured=False)
            parts.append(trained.uploads)
        ordinary = join(parts)
        sortie = Sortie(
            number,
            clients,
            broadcast(state.model),
            own,
            reordered(ordinary, ordinary.clients.argsort()),
            gang.stream(number),
            join(sent) if self._listens and sent else None,
        )
        state.plotted, forged = gang.forge(state.plotted, sortie)
        self._count(state, forged, malicious=True)
        spent = state.costs.attacks
        spent[gang.name] = spent.get(gang.name, 0.0) + time.thread_time() - start
        return devices.guarded(forged)

    def _count(self, state: RunState, uploads: Uploads, malicious: bool) -> None:
        if self.gang:
            state.traffic.count(uploads, self.gang.plot.targets, malicious)

    def _tell(self, done: float) -> None:
        """Say how far a round is; that it is over is said with its figures."""
        if self.progress and not done.is_integer():
            self.progress(done, self.setup.rounds, {})

    def _keep(
        self, state: RunState, shard: Cohort, trained: Trained, measured: bool
    ) -> None:
        """Write what stays on the devices; measure it there where the view is local."""
        for name, value in trained.private.items():
            state.private[name][shard.clients] = value
        for name, rows in trained.private_rows.items():
            state.private[name][shard.clients[rows.sender], rows.item] = rows.value
        if measured and _local_view(self.fleet.method):
            own = cohort_of(self.setup.world, shard.clients)
            local = trained.uploads.rows
            assert isinstance(self.task, Ranking)
            found = self.task.measure_locally(state.model, state.private, own, local)
            state.put(own.clients, found)
        let_go(state.private)

    def _learn(
        self,
        state: RunState,
        delivered: Delivered,
        sent: Sequence[Uploads],
        cohort: Cohort,
        now: Now,
    ) -> None:
        """The server's step, and what defenses do with the total before it."""
        start = time.thread_time()
        method = self.fleet.method
        if isinstance(method, FromUploads):
            draws = self.fleet.seeds("server", now.number)
            state.model = method.learn(state.model, join(sent), draws)
        else:
            assert isinstance(method, FromTotal)
            total, state.kept = self.fleet.combine(delivered.total, cohort, now)
            state.model = method.apply(state.model, total)
        state.costs.add(Spent(server_seconds=time.thread_time() - start))
        state.costs.add(delivered.spent)
        state.traffic.rounds += 1
        if delivered.rejected:
            state.traffic.filtered(delivered.rejected, self.setup.world.honest)
        for view in delivered.views:
            self._show(state, view)

    def _show(self, state: RunState, view: View) -> None:
        self.watch.show(state.memory, view, state.costs.attacks)

    def _evaluate(self, state: RunState) -> Mapping[str, float]:
        if not _local_view(self.fleet.method):
            self._measure_everyone(state)
        return state.judge(self.task)

    def _measure_everyone(self, state: RunState) -> None:
        model, private = state.model, state.private

        def work(clients: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
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
        gang = self.gang
        exposure = _exposure(world, gang)
        task = task_of(
            self.setup.method, world, self.setup.protocol, self.fleet.seeds, exposure
        )
        held = task.held()
        state.best_marks = {
            name: Marks(marks.value.cpu(), held[name])
            for name, marks in state.best_marks.items()
        }
        guarantees = [defense.guarantee() for defense in self.fleet.defenses]
        final = ModelView(round=state.next, model=broadcast(state.model))
        self._show(state, final)
        guesses = self.watch.guesses(state.memory, state.costs.attacks)
        carried = self.setup.channel.guarantee()
        return Outcome(
            world,
            state,
            guesses,
            guarantees,
            carried,
            self.watch.priors,
            task,
            None if gang is None else gang.plot,
        )


def _exposure(world: World, gang: Gang | None) -> Exposure | None:
    if gang is None or not len(gang.plot.targets):
        return None
    return Exposure.of(world, gang.plot.targets.to(world.train.item.device))


def _sides(cohort: Cohort, honest: int) -> tuple[Cohort, Cohort]:
    """The honest and the malicious of a round's clients."""
    count = int((cohort.clients < honest).sum())
    if count == len(cohort.clients):
        return cohort, part_of(cohort, torch.arange(0))
    everyone = torch.arange(len(cohort.clients))
    return part_of(cohort, everyone[:count]), part_of(cohort, everyone[count:])


def _refuse_party(setup: Setup) -> None:
    """Raise SettingsError where malicious clients would never take part."""
    if setup.sampling.kind == "interactions":
        raise SettingsError(
            "--sampling interactions never takes clients without honest interactions, "
            "so malicious ones would not take part; take --sampling uniform"
        )


def _diverged(round: int, sign: str) -> PrivfedError:
    return PrivfedError(
        f"round {round}: training diverged ({sign}); lower the learning rate or, "
        "with a defense, its noise"
    )


def _local_view(method: Method) -> bool:
    return isinstance(method, LocalView) and method.local_view


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
