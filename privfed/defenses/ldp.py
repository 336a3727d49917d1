"""Local differential privacy of whole uploads, with or without a shuffler.

Duchi, Jordan and Wainwright, Local Privacy and Statistical Minimax Rates, FOCS 2013;
the shuffler's amplification is that of Feldman, McMillan and Talwar, Hiding Among the
Clones, FOCS 2021.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from privfed.accounting.gaussian import gaussian_noise
from privfed.accounting.guarantee import OUTSIDE, Guarantee
from privfed.accounting.local import (
    GaussianUploads,
    LaplaceUploads,
    most_pure,
    most_shuffled,
)
from privfed.checks import positive
from privfed.devices.clipping import clipped
from privfed.devices.dpsgd import NoiseSource
from privfed.devices.own_data import by_own_data
from privfed.errors import SettingsError
from privfed.interfaces import Defense, FromUploads, Invites, Method, Plan, Turn
from privfed.messages import Rows, Uploads, everywhere


@dataclass(frozen=True)
class LDP(Defense):
    """Clip each whole upload on its device and noise every number of it.

    Give ``epsilon``, of all rounds that a client takes part in (8 by default), or
    ``epsilon_round``, of one round. ``gaussian`` clips in L2, ``laplace`` in L1, to
    ``clip``, all tensors together; any two uploads of a user are then 2 ``clip`` apart,
    and every client counts 1. Every row of every table is noised and sent. Guarantee:
    whoever sees all of a user's uploads, and every model made from them, learns of its
    whole history no more than (epsilon, delta) allows; nobody need be trusted. It does
    not cover who takes part, and how often.

    ``shuffle`` counts on a shuffler that takes the sender off every upload of a round
    and mixes them, which this simulation has not: the server is then told no sender,
    and less noise will do. Laplace noise only, and only where many clients each spend
    little.
    """

    epsilon: float | None = None
    epsilon_round: float | None = None
    delta: float = 1e-5
    clip: float = 1.0
    noise: Literal["gaussian", "laplace"] = "gaussian"
    shuffle: bool = False

    hides = "a user's whole history, item ids included, from everybody"
    does_not_hide = "who takes part, and how often"
    unit = "user"
    trust = "nobody; with shuffle, whoever shuffles"
    cost = "dense uploads; nearly all accuracy at an epsilon below 10"
    paper = "Duchi et al., FOCS 2013; Feldman et al., FOCS 2021"
    bounds_upload = True

    def __post_init__(self) -> None:
        if self.epsilon is not None and self.epsilon_round is not None:
            raise ValueError("give epsilon or epsilon_round, not both")
        given = ("epsilon", "epsilon_round")
        positive(self, "clip", *(n for n in given if getattr(self, n) is not None))
        if not 0 < self.delta < 1:
            raise ValueError(f"delta must lie in (0, 1), got {self.delta}")
        if self.shuffle and self.noise != "laplace":
            raise ValueError(
                "shuffle is proven to amplify pure DP only: add noise=laplace"
            )

    def prepare(self, plan: Plan) -> "CalibratedLDP":
        """Fix the noise for the most rounds that any one client takes part in."""
        times = plan.participations
        release = (
            self._laplace(plan) if self.noise == "laplace" else self._gaussian(times)
        )
        return CalibratedLDP(release, self.clip, self.delta)

    def method(self, method: Method) -> Method:
        return by_own_data(method)

    @property
    def _target(self) -> float:
        return 8.0 if self.epsilon is None else self.epsilon

    def _gaussian(self, times: int) -> GaussianUploads:
        one, target = self.epsilon_round, self._target
        if one is not None:
            return GaussianUploads(gaussian_noise(one, self.delta), times)
        return GaussianUploads(gaussian_noise(target, self.delta, times), times)

    def _laplace(self, plan: Plan) -> LaplaceUploads:
        times = plan.participations
        cohort = _cohort(plan) if self.shuffle else None
        if self.epsilon_round is not None:
            found = LaplaceUploads(self.epsilon_round, times, cohort)
            return found.gains(self.delta)
        if cohort is None:
            return LaplaceUploads(most_pure(self._target, times, self.delta), times)
        each = most_shuffled(self._target, cohort, times, self.delta)
        return LaplaceUploads(each, times, cohort)


@dataclass(frozen=True)
class CalibratedLDP(Defense):
    """Local differential privacy whose noise is known; made by ``LDP.prepare``."""

    release: GaussianUploads | LaplaceUploads
    clip: float
    delta: float

    bounds_upload = LDP.bounds_upload

    def method(self, method: Method) -> Method:
        return by_own_data(method)

    @property
    def spread(self) -> float:
        """Deviation of the Gaussian noise, or scale of the Laplace noise."""
        if isinstance(self.release, GaussianUploads):
            return 2 * self.clip * self.release.noise
        return 2 * self.clip / self.release.each

    @property
    def _mixed(self) -> int | None:
        return getattr(self.release, "cohort", None)

    def on_upload(self, uploads: Uploads, turn: Turn) -> Uploads:
        if self._mixed and uploads.users:
            raise SettingsError(
                "ldp:shuffle: this method sends each client's own row of a table of "
                "users, so an upload names its sender; leave shuffle out"
            )
        laplace = isinstance(self.release, LaplaceUploads)
        sent = clipped(uploads, self.clip, "l1" if laplace else "l2")
        draw = _Draws(turn, sent.clients, laplace)
        noised = _noised(sent, turn.shape.items, draw, self.spread)
        same = None if uploads.weight is None else torch.ones_like(uploads.weight)
        return replace(noised, weight=same)

    def sends_every_row(self) -> bool:
        return True

    def guarantee(self) -> Guarantee:
        found = self.release.epsilon(self.delta)
        cohort = self._mixed
        trust = "local: each device noises its own upload; nobody is trusted"
        if cohort:
            trust = (
                "assumed and not simulated: a trusted shuffler that takes the sender "
                f"off all {cohort} uploads of a round and mixes them, and of which "
                "nobody else sees an upload before"
            )
        return Guarantee(
            private=True,
            epsilon=found.value,
            delta=self.delta,
            unit="user",
            relation="replace one user's whole history by any other",
            trust=trust,
            accountant=found.accountant,
            covers=f"all uploads of a user over {self.release.times} rounds, item ids "
            "included, and every model made from them",
            caveats=(*self._settings(), OUTSIDE),
        )

    def _settings(self) -> tuple[str, ...]:
        one, kind = self.release.one(self.delta), "deviation"
        if isinstance(self.release, LaplaceUploads):
            kind = "scale"
        return (
            f"one round alone spends epsilon {one:.3g}",
            f"each whole upload clipped to norm {self.clip:g}, noise of {kind} "
            f"{self.spread:.3g} on every number of it",
        )


@dataclass(frozen=True)
class _Draws:
    """Standard noise for a shard, from each client's own generator."""

    turn: Turn
    clients: Tensor
    laplace: bool

    def __call__(self, what: str, like: Tensor) -> Tensor:
        """Noise shaped like ``like``, whose first axis is clients."""
        if not self.laplace:
            return self._normal(what, like)
        # half the sum of two squared normals is exponential; two of them differ by
        # Laplace noise of scale 1, with no function whose bits depend on the shard
        parts = [self._normal(f"{what} {k}", like).square_() for k in range(4)]
        return (parts[0] + parts[1] - parts[2] - parts[3]) / 2

    def _normal(self, what: str, like: Tensor) -> Tensor:
        return NoiseSource(self.turn.stream, self.clients, 0)(what, like)


def _noised(sent: Uploads, items: int, draw: _Draws, spread: float) -> Uploads:
    """Every number of every upload with noise, the rows that were not sent too."""
    clients = len(sent.clients)

    def add(what: str, value: Tensor) -> Tensor:
        return value + spread * draw(what, value)

    def table(name: str, rows: Rows) -> Rows:
        whole = everywhere(rows, clients, items)
        value = whole.value.view(clients, items, rows.value.shape[1])
        return replace(whole, value=add(f"rows {name}", value).flatten(0, 1))

    return replace(
        sent,
        rows={name: table(name, rows) for name, rows in sent.rows.items()},
        dense={n: add(f"dense {n}", v) for n, v in sent.dense.items()},
        users={n: add(f"users {n}", v) for n, v in sent.users.items()},
        rest={n: add(f"rest {n}", v[:, None])[:, 0] for n, v in sent.rest.items()},
        packed={},
    )


def _cohort(plan: Plan) -> int:
    """How many uploads a shuffler mixes in each round.

    Raises SettingsError where their number is not fixed, or their server must know
    who sent what.
    """
    if isinstance(plan.method, FromUploads | Invites):
        raise SettingsError(
            "ldp:shuffle: this method's server must know who sent what; leave shuffle "
            "out"
        )
    if plan.sampling.kind in ("poisson", "interactions"):
        raise SettingsError(
            f"ldp:shuffle: cohorts of --sampling {plan.sampling.kind} have no fixed "
            "size, which the amplification rests on; take --sampling all, uniform or "
            "queue"
        )
    return plan.largest_cohort
