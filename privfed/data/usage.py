"""A generated log of which service each client opens, where none can be had.

FedMeta's log of 9,369 phones (Chen et al., 2018, Section 4.2) is not public. This one
has its counts: 2 to 36 of 2,400 services and, in full, 100 to 5,000 records a client.
What makes it learnable is ours: services are of kinds, and a kind says at which hours
and days a service is opened and which kind follows it; each client has habits besides.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privfed.checks import at_least
from privfed.data.choices import LEVELS, choice_records
from privfed.data.interactions import Interactions

SERVICES, KINDS = 2400, 12
FEWEST_SERVICES, MOST_SERVICES = 2, 36
START = 1_609_459_200  # 2021-01-01, a Friday, in seconds since 1970
# In log-odds, chosen so that the most and the last used service of a client are right
# about as often as the paper says (43 % and 70 %), and there is more to learn: who
# knew all of this would be right about 86 % of the time.
_HABIT, _CHAIN, _CLOCK, _AGAIN = 1.2, 3.5, 2.0, 4.0
_SLOT, _WEEK = 7200, 604_800

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Population:
    """How many clients a log has, and how long their histories are."""

    clients: int = 300
    fewest: int = 100
    most: int = 600

    def __post_init__(self) -> None:
        at_least(self, 1, "clients")
        if not 1 <= self.fewest <= self.most:
            raise ValueError(
                f"fewest must be 1 to most, got {self.fewest} and {self.most}"
            )


FULL = Population(clients=9369, fewest=100, most=5000)


def usage(seed: int = 0, population: Population = Population()) -> Interactions:
    """Records of choices of the generated log."""
    log, levels = usage_log(seed, population)
    return choice_records(log, levels, fewest=1)[0]


def usage_log(
    seed: int = 0,
    population: Population = Population(),
) -> tuple[Interactions, Tensor]:
    """The log itself, items being services, and the battery's level (rows, 4)."""
    rng = np.random.default_rng([seed, 0x5E])
    counts = _counts(rng, population)
    world = _Services.drawn(rng, population.clients)
    chosen, time = _simulate(rng, world, counts)
    user = np.repeat(np.arange(population.clients), counts)
    real = np.arange(counts.max()) < counts[:, None]
    battery = (24 - time[real] % 86_400 / 3600 + rng.uniform(0, 8, len(user))) / 32
    level = np.clip((LEVELS * battery).astype(np.int64), 0, LEVELS - 1)
    log = Interactions(
        name="usage",
        users=population.clients,
        items=SERVICES,
        user=torch.from_numpy(user),
        item=torch.from_numpy(world.service[user, chosen[real]]),
        time=torch.from_numpy(time[real]),
    )
    return log, torch.from_numpy(np.eye(LEVELS, dtype=np.float32)[level])


@dataclass(frozen=True, eq=False)
class _Services:
    """Each client's services, padded to 36, and the log-odds of opening them."""

    service: NDArray[np.int64]  # (clients, 36)
    habit: Array  # (clients, 36), -inf where padded
    follows: Array  # (clients, 36, 36): from the row's service to the column's
    clock: Array  # (clients, 84, 36): by the 12 slots of 7 days

    @classmethod
    def drawn(cls, rng: np.random.Generator, clients: int) -> "_Services":
        kind = rng.integers(KINDS, size=SERVICES)
        popular = -np.log(1.0 + rng.permutation(SERVICES))  # Zipf's law
        log_odds = popular + rng.gumbel(size=(clients, SERVICES))
        service = np.argsort(-log_odds, axis=1)[:, :MOST_SERVICES]
        many = rng.integers(FEWEST_SERVICES, MOST_SERVICES + 1, clients)
        padding = np.arange(MOST_SERVICES) >= many[:, None]
        kinds = kind[service]  # (clients, 36)
        habit = _HABIT * rng.normal(size=service.shape)
        chain = _CHAIN * rng.normal(size=(KINDS, KINDS))
        own = 0.5 * _CHAIN * rng.normal(size=(clients, MOST_SERVICES, MOST_SERVICES))
        follows = chain[kinds[:, :, None], kinds[:, None, :]] + own
        follows += _AGAIN * np.eye(MOST_SERVICES)
        hours = _CLOCK * rng.normal(size=(84, KINDS))
        shift = rng.integers(-1, 2, clients)  # some rise early, some late
        at = (np.arange(84) + shift[:, None]) % 84
        clock = hours[at[:, :, None], kinds[:, None, :]]
        return cls(service, np.where(padding, -np.inf, habit), follows, clock)


def _counts(rng: np.random.Generator, population: Population) -> NDArray[np.int64]:
    """Records of each client: most have few, some have very many."""
    low, high = np.log(population.fewest), np.log(population.most)
    drawn = np.exp(rng.uniform(low, high, population.clients))
    return np.clip(np.rint(drawn).astype(np.int64), population.fewest, population.most)


def _simulate(
    rng: np.random.Generator, world: _Services, counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Place among its services that each client opens, and when: (clients, steps)."""
    clients, steps = len(counts), int(counts.max())
    everyone = np.arange(clients)
    gaps = rng.exponential(3600, (clients, steps))
    time = START + np.cumsum(gaps, axis=1).astype(np.int64)
    slot = time % _WEEK // _SLOT
    chosen = np.zeros((clients, steps), dtype=np.int64)
    last = np.argmax(world.habit, axis=1)
    for step in range(steps):
        odds = world.habit + world.follows[everyone, last]
        odds = odds + world.clock[everyone, slot[:, step]]
        last = np.argmax(odds + rng.gumbel(size=odds.shape), axis=1)
        chosen[:, step] = last
    return chosen, time
