"""User-level differential privacy of a federated sum (DP-FedAvg).

McMahan, Ramage, Talwar and Zhang, Learning Differentially Private Recurrent Language
Models, ICLR 2018; the clip that follows a quantile is that of Andrew, Thakkar, McMahan
and Ramaswamy, Differentially Private Learning with Adaptive Clipping, NeurIPS 2021.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from privfed.accounting.guarantee import OUTSIDE, Guarantee
from privfed.accounting.loss import Relation
from privfed.accounting.user import (
    Cohorts,
    Poisson,
    sum_noise,
    user_epsilon,
    user_noise,
)
from privfed.checks import positive
from privfed.defenses.cohorts import cohorts_of, relation_of
from privfed.devices.clipping import clipped, norms
from privfed.devices.own_data import by_own_data
from privfed.errors import SettingsError
from privfed.interfaces import Defense, Method, Plan, State, Turn
from privfed.messages import Total, Uploads
from privfed.seeds import Stream

BIT = "user_dp.bit"  # whether an upload was within the clip, less a half
CLIP = "clip"

_SLACK = 1e-3  # the share of delta set aside for a Poisson cohort that is empty
_SHARE = 1 / 20  # of the cohort: noise on the count of bits, as Andrew et al. have it
_RATE = 0.2  # of the clip's geometric steps, likewise


@dataclass(frozen=True)
class UserDP(Defense):
    """DP-FedAvg: clip each whole upload, noise the sum once.

    Give ``epsilon`` to have the noise calibrated to it (8 by default), or
    ``noise_multiplier``, the noise's deviation over the clip, to have its epsilon
    reported. Each client's upload, all tensors together, is scaled to L2 norm at most
    ``clip``, and counts 1. Every number of the sum is noised, every row of every table
    included; it is then divided by the expected cohort, never by who came. With
    ``quantile`` the clip starts at ``clip`` and follows that quantile of the norms,
    from one noised bit a client, which the guarantee covers. Guarantee: whoever sees
    the models of all rounds learns of any one user's whole history no more than
    (epsilon, delta) allows.

    How cohorts are drawn decides the accountant: ``all``, ``queue`` and ``rest`` hide
    nobody; Poisson cohorts and uniform ones hide who takes part, and need less noise.
    ``relation`` is what neighbors differ by; ``auto`` is ``add_or_remove``, and for
    uniform cohorts ``replace_one``, the only one their amplification is proven for.
    """

    epsilon: float | None = None
    noise_multiplier: float | None = None
    delta: float = 1e-5
    clip: float = 1.0
    quantile: float | None = None
    relation: Literal["auto", "add_or_remove", "replace_one"] = "auto"

    hides = "a user's whole history, from whoever sees the models"
    does_not_hide = (
        "clipped uploads from the server, where no channel hides them; who the "
        "clients are"
    )
    unit = "user"
    trust = "whoever sees uploads or their sum; nobody who sees models alone"
    cost = "accuracy, less with more clients, fewer rounds and a smaller model"
    paper = "McMahan et al., ICLR 2018; Andrew et al., NeurIPS 2021"
    bounds_upload = True

    def __post_init__(self) -> None:
        if self.epsilon is not None and self.noise_multiplier is not None:
            raise ValueError("give epsilon or noise_multiplier, not both")
        given = ("epsilon", "noise_multiplier")
        positive(self, "clip", *(n for n in given if getattr(self, n) is not None))
        if not 0 < self.delta < 1:
            raise ValueError(f"delta must lie in (0, 1), got {self.delta}")
        if self.quantile is not None and not 0 < self.quantile < 1:
            raise ValueError(f"quantile must lie in (0, 1), got {self.quantile}")

    def prepare(self, plan: Plan) -> "CalibratedUserDP":
        """Fix the noise for how this run draws its cohorts."""
        cohorts, expected = cohorts_of(plan)
        relation = relation_of(self.relation, cohorts)
        delta = (
            self.delta * (1 - _SLACK) if isinstance(cohorts, Poisson) else self.delta
        )
        noise = self.noise_multiplier
        if noise is None:
            target = 8.0 if self.epsilon is None else self.epsilon
            noise = user_noise(target, cohorts, relation, delta)
        ready = CalibratedUserDP(
            noise,
            self.clip,
            self.quantile,
            self.delta,
            delta,
            cohorts,
            relation,
            expected,
        )
        _refuse_empty(ready, plan.clients)
        return ready

    def method(self, method: Method) -> Method:
        return by_own_data(method)


@dataclass(frozen=True)
class CalibratedUserDP(Defense):
    """DP-FedAvg whose noise is known; made by ``UserDP.prepare``."""

    noise_multiplier: float
    clip: float
    quantile: float | None
    delta: float
    spent: float  # the part of delta that the accountant gets
    cohorts: Cohorts
    relation: Relation
    expected: int  # clients of a round: the fixed denominator

    bounds_upload = UserDP.bounds_upload

    def method(self, method: Method) -> Method:
        return by_own_data(method)

    @property
    def bits(self) -> float:
        """Deviation of the noise on the count of uploads within the clip."""
        return max(self.expected * _SHARE, self.noise_multiplier)

    @property
    def on_sum(self) -> float:
        """Deviation of the noise on every other number of the sum, over the clip."""
        if self.quantile is None:
            return self.noise_multiplier
        return sum_noise(self.noise_multiplier, self.bits)

    def start(self) -> State:
        if self.quantile is None:
            return {}
        return {CLIP: torch.tensor(self.clip, dtype=torch.float64)}

    def on_upload(self, uploads: Uploads, turn: Turn) -> Uploads:
        clip = self._clip(turn)
        sent = clipped(uploads, clip)
        if self.quantile is None:
            return sent
        bit = (norms(uploads) <= clip).float()[:, None] - 0.5
        scale = {**sent.scale, BIT: 1.0}
        return replace(sent, dense={**sent.dense, BIT: bit}, scale=scale)

    def on_total(self, total: Total, turn: Turn) -> Total:
        noise = _Noise(turn.stream, self.on_sum * self._clip(turn))
        came, count = total.clients, self.expected
        return replace(
            total,
            tables=noise.on("table", total.tables),
            senders={n: torch.full_like(v, count) for n, v in total.senders.items()},
            dense=noise.on("dense", {n: v for n, v in total.dense.items() if n != BIT}),
            weight=float(count),
            clients=count,
            users=noise.on("users", total.users),
            rest=noise.on(
                "rest", {n: v + (count - came) for n, v in total.rest.items()}
            ),
        )

    def learn(self, total: Total, turn: Turn) -> State:
        """Let the clip follow its quantile (Andrew et al., algorithm 1)."""
        if self.quantile is None:
            return turn.memory
        noise = _Noise(turn.stream, self.bits)
        within = float(noise.on("bit", {BIT: total.dense[BIT]})[BIT]) / self.expected
        step = math.exp(-_RATE * (within + 0.5 - self.quantile))
        return {CLIP: turn.memory[CLIP] * step}

    def _clip(self, turn: Turn) -> float:
        return float(turn.memory[CLIP]) if self.quantile is not None else self.clip

    def guarantee(self) -> Guarantee:
        found = user_epsilon(
            self.noise_multiplier, self.cohorts, self.relation, self.spent
        )
        return Guarantee(
            private=True,
            epsilon=found.value,
            delta=self.delta,
            unit="user",
            relation=_RELATION[self.relation],
            trust="whoever holds the sum of uploads is trusted: the server, with every "
            "clipped upload before any noise; with secure aggregation or encryption, "
            "with their un-noised sum alone",
            accountant=found.accountant,
            covers="the models of all rounds, item ids included, against everybody who "
            "sees them",
            caveats=(*self._settings(), self.cohorts.told, OUTSIDE),
        )

    def _settings(self) -> tuple[str, ...]:
        said = (
            f"noise multiplier {self.noise_multiplier:.3g}, each whole upload clipped "
            f"to norm {self.clip:g}, sums divided by {self.expected}"
        )
        if self.quantile is None:
            return (said,)
        return (
            f"{said}; the clip follows quantile {self.quantile:g}, from a noised count "
            "that is accounted for",
        )


@dataclass(frozen=True)
class _Noise:
    """Gaussian noise on a sum, once."""

    stream: Stream
    std: float

    def on(self, kind: str, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: value + self._draw(f"{kind} {name}", value)
            for name, value in sums.items()
        }

    def _draw(self, what: str, like: Tensor) -> Tensor:
        rng = self.stream.of(what).generator()
        # the draws of a CPU, so that a device changes none
        drawn = torch.randn(like.shape, generator=rng, device="cpu")
        return drawn.to(like) * self.std


def _refuse_empty(ready: CalibratedUserDP, clients: int) -> None:
    """Raise SettingsError where a Poisson cohort may be empty: its round is skipped.

    A round without noise tells that nobody came. If that has chance p, delta grows by
    (1 + e^epsilon) p, which must fit into what was set aside for it.
    """
    cohorts = ready.cohorts
    if not isinstance(cohorts, Poisson):
        return
    found = user_epsilon(ready.noise_multiplier, cohorts, ready.relation, ready.spent)
    nobody = math.log(cohorts.rounds) + (clients - 1) * math.log1p(-cohorts.rate)
    grown = found.value + math.log1p(math.exp(-found.value))
    if nobody + grown > math.log(ready.delta - ready.spent):
        raise SettingsError(
            f"user_dp: a Poisson cohort of {ready.expected} expected clients may be "
            f"empty, which its models would tell; the chance of {math.exp(nobody):.1g} "
            f"is too much beside delta={ready.delta:g}; take more --clients-per-round"
        )


_RELATION = {
    "add_or_remove": "add or remove one user's whole history; who the clients are, and "
    "how many, is public",
    "replace_one": "replace one user's whole history by any other",
}
