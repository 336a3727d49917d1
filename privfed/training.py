"""One round of training: devices, the channel, the server, and who watches them."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from privfed.data.cohort import Cohort, cohort_of
from privfed.data.world import World
from privfed.evaluation.ranking import Ranking
from privfed.evaluation.task import Task
from privfed.fleet import Devices, Fleet, Now
from privfed.interfaces import (
    Channel,
    Delivered,
    FromTotal,
    FromUploads,
    LocalView,
    Method,
    Opening,
    Trained,
    broadcast,
)
from privfed.machine import let_go
from privfed.messages import Spent, Uploads, join, reordered, unmoved
from privfed.party import Gang
from privfed.poisoning import Sortie
from privfed.state import RunState
from privfed.views import ModelView, ServerView, View
from privfed.watch import Watch, timed
from privfed.workers import Workers


@dataclass(frozen=True)
class Training:
    """All that takes part in training; ``tell`` is told how far a round is."""

    world: World
    fleet: Fleet
    channel: Channel
    crew: Workers
    watch: Watch
    task: Task
    gang: Gang | None
    tell: Callable[[float], None]

    def round(self, state: RunState, cohort: Cohort) -> float | None:
        """Train a round's clients and learn from them, in place.

        Returns the honest clients' mean loss, None where there is none.
        """
        self.show(state, ModelView(round=state.next, model=broadcast(state.model)))
        self.show(state, ServerView(round=state.next, model=state.model))
        state.took_part[cohort.clients] = True
        if not len(cohort.clients):  # a Poisson cohort may be empty
            return None
        now = Now(state.next, state.model, state.private, state.kept)
        sent: list[Uploads] = []  # where somebody needs every one
        losses: list[Tensor] = []
        stream = self.fleet.seeds("channel", now.number)
        opened = self.channel.open(
            Opening(now.number, cohort.shape, cohort.clients, stream)
        )
        for uploads in self._uploads(state, now, cohort, losses, sent):
            opened, view = self.channel.send(opened, uploads)
            self.show(state, view)
            sent += [uploads] if self._hoards else []
        self._learn(state, self.channel.close(opened), sent, cohort, now)
        down = self.fleet.method.bytes_down(now.model) * len(cohort.clients)
        state.costs.add(Spent(bytes_down=down))
        return float(torch.cat(losses).double().mean()) if losses else None

    def show(self, state: RunState, view: View) -> None:
        """Let attacks take in what they may see."""
        self.watch.show(state.memory, view, state.costs.attacks)

    @property
    def _hoards(self) -> bool:
        """Whether all uploads of a round are needed at its end."""
        return isinstance(self.fleet.method, FromUploads) or self._listens

    @property
    def _listens(self) -> bool:
        """Whether a poisoner hears what all others send."""
        return self.gang is not None and self.gang.poisoner.knows.uploads

    def _uploads(
        self,
        state: RunState,
        now: Now,
        cohort: Cohort,
        losses: list[Tensor],
        sent: Sequence[Uploads],
    ) -> Iterator[Uploads]:
        """What a round's clients send, shard by shard, malicious ones last."""
        devices = self.fleet.devices(now, cohort)
        honest, malicious = _sides(cohort, self.world.honest)
        if len(honest.clients):
            for trained, uploads in self._trained(state, devices, honest):
                losses.append(trained.loss)
                yield uploads
        if self.gang and len(malicious.clients):
            heard = join(sent) if self._listens and sent else None
            yield devices.guarded(
                self._forged(state, self.gang, devices, malicious, heard)
            )

    def _trained(
        self, state: RunState, devices: Devices, honest: Cohort
    ) -> Iterator[tuple[Trained, Uploads]]:
        """Honest clients by shards: what training left, and what is uploaded."""
        shards = self.fleet.shards(honest, devices.now)
        done = 0
        for shard, (trained, uploads, seconds) in zip(
            shards, self.crew.map(devices.work, shards), strict=True
        ):
            self._keep(state, shard, trained)
            if is_local(self.fleet.method):
                self._measure(state, shard, trained)
            if self.gang:
                state.traffic.honest_rows += self.gang.promoted(trained.uploads)
            state.costs.add(Spent(client_seconds=seconds))
            yield trained, uploads
            done += len(shard.clients)
            self.tell(devices.now.number + done / len(honest.clients))

    def _forged(
        self,
        state: RunState,
        gang: Gang,
        devices: Devices,
        malicious: Cohort,
        heard: Uploads | None,
    ) -> Uploads:
        """What malicious clients upload, before any defense."""
        clients, now = malicious.clients, devices.now
        with timed(state.costs.attacks, gang.name):
            own = {name: v[clients].clone() for name, v in state.private.items()}
            if gang.poisoner.trains:
                ordinary = self._ordinary(state, devices, gang.devices(malicious))
            else:
                ordinary = unmoved(self._form, clients)
            stream, model = gang.stream(now.number), broadcast(now.model)
            sortie = Sortie(now.number, clients, model, own, ordinary, stream, heard)
            state.plotted, forged = gang.forge(state.plotted, sortie)
        state.traffic.malicious_rows += gang.promoted(forged)
        return forged

    def _ordinary(
        self, state: RunState, devices: Devices, malicious: Cohort
    ) -> Uploads:
        """What the method makes of made-up data."""
        parts = []
        for shard in self.fleet.shards(malicious, devices.now):
            trained = devices.train(shard)
            self._keep(state, shard, trained)
            parts.append(trained.uploads)
        together = join(parts)
        return reordered(together, together.clients.argsort())

    @cached_property
    def _form(self) -> Uploads:
        """An upload of one malicious client, for its form alone."""
        assert self.gang
        model, private = self.fleet.method.init(
            self.world.shape, self.fleet.seeds("form")
        )
        one = cohort_of(self.world, self.gang.plot.mine[:1])
        now = Now(0, model, private, self.fleet.start())
        return self.fleet.devices(now, one).train(self.gang.devices(one)).uploads

    def _keep(self, state: RunState, shard: Cohort, trained: Trained) -> None:
        """Write what stays on the devices."""
        for name, value in trained.private.items():
            state.private[name][shard.clients] = value
        for name, rows in trained.private_rows.items():
            state.private[name][shard.clients[rows.sender], rows.item] = rows.value
        let_go(state.private)

    def _measure(self, state: RunState, shard: Cohort, trained: Trained) -> None:
        """Measure clients there where each has its own view of the model."""
        own = cohort_of(self.world, shard.clients)
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
            state.traffic.filtered(delivered.rejected, self.world.honest)
        for view in delivered.views:
            self.show(state, view)


def is_local(method: Method) -> bool:
    """Whether clients predict with what they trained in a round."""
    return isinstance(method, LocalView) and method.local_view


def _sides(cohort: Cohort, honest: int) -> tuple[Cohort, Cohort]:
    """The honest and the malicious of a round's clients.

    Malicious ones come last and hold none of the world's data.
    """
    count, none = int((cohort.clients < honest).sum()), cohort.sender[:0]
    malicious = replace(
        cohort,
        clients=cohort.clients[count:],
        sender=none,
        item=none,
        label=cohort.label[:0],
        context=cohort.context[:0],
        held_out=(none, none),
    )
    return replace(cohort, clients=cohort.clients[:count]), malicious
