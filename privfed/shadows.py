"""Made-up users, trained and defended as the public algorithm says.

Whoever knows the method and the defenses with their settings can run both on users of
its own invention and look at what they send. Nothing here sees a real user.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from privfed.adversary import Prior
from privfed.data.cohort import Cohort
from privfed.fleet import Fleet, Now
from privfed.interfaces import State
from privfed.machine import Machine
from privfed.messages import Rows, Uploads, join
from privfed.seeds import Seeds, Stream


@dataclass(frozen=True, eq=False)
class Shadows:
    """What made-up users sent; they go by names of real clients, without their data."""

    uploads: Uploads  # as they left the devices, after every defense
    trained: Mapping[str, Rows]  # as training left them; same order of clients
    taken: Tensor  # (shadows, items) bool: what each interacted with


def shadows(
    prior: Prior, model: State, round: int, taken: Tensor, stream: Stream
) -> Shadows:
    """Train one made-up user for each row of ``taken``, (shadows, items) bool.

    They begin where a client that never took part begins, with private tensors that
    the adversary draws itself. There are at most as many as clients.
    """
    rng = stream.of("names").generator()
    named = torch.randperm(prior.clients, generator=rng, device="cpu")[: len(taken)]
    cohort = _cohort(prior, named.to(taken.device), taken)
    _, private = prior.method.init(prior.shape, stream.of("private"))
    fleet = Fleet(
        prior.method,
        prior.defenses,
        Machine(workers=1),
        Seeds(stream.of("devices").key & (2**63 - 1)),
        any(defense.sends_every_row() for defense in prior.defenses),
    )
    now = Now(round, model, private, fleet.start())
    devices = fleet.devices(now, cohort)
    done = [devices.work(shard) for shard in fleet.shards(cohort, now)]
    before = join([trained.uploads for trained, _, _ in done])
    after = join([uploads for _, uploads, _ in done])
    place = torch.zeros(prior.clients, dtype=torch.int64)
    place[cohort.clients] = torch.arange(len(taken))
    return Shadows(after, before.rows, taken[place[after.clients]])


def _cohort(prior: Prior, clients: Tensor, taken: Tensor) -> Cohort:
    sender, item = taken.nonzero(as_tuple=True)
    common = prior.popularity
    nobody = sender[:0]
    return Cohort(
        prior.shape,
        clients,
        sender,
        item,
        torch.ones(len(item)),
        torch.zeros(len(item), prior.shape.context),
        prior.features,
        torch.arange(prior.items) if common is None else common.nonzero()[:, 0],
        (nobody, nobody),
    )
