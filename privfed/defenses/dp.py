"""Interaction-level differential privacy by DP-SGD on the device."""

from dataclasses import dataclass, replace
from typing import Self

from privfed.accounting import Guarantee, InteractionRelease, calibrate, epsilon
from privfed.devices.dpsgd import InteractionDP
from privfed.errors import SettingsError
from privfed.interfaces import Defense, Method, Plan


@dataclass(frozen=True)
class DP(Defense):
    """DP-SGD in local training: clip each interaction, noise every number.

    Give ``epsilon`` to have the noise calibrated to it, or ``noise_multiplier`` to
    have its epsilon reported. Guarantee: whoever sees all of a client's uploads,
    and every model made from them, learns of any one of its interactions no more
    than (epsilon, delta) allows. That covers the item ids: every row of every
    table is noised and sent. Private tensors are noised as well. It does not
    cover a user's whole history, nor how often a client takes part.
    """

    epsilon: float | None = None
    noise_multiplier: float | None = None
    delta: float = 1e-5
    clip: float = 1.0
    sampling_rate: float = 1.0
    steps: int = 1  # local steps in a round
    plan: Plan | None = None

    hides = "whether a client has any one interaction, item ids included"
    does_not_hide = "a user's whole history; who takes part, and how often"
    cost = "dense uploads; much accuracy, since each device adds its own noise"
    paper = "Abadi et al., CCS 2016, on the device"

    def __post_init__(self) -> None:
        if self.epsilon is not None and self.noise_multiplier is not None:
            raise ValueError("give epsilon or noise_multiplier, not both")
        for name in ("epsilon", "noise_multiplier", "clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} must be positive, got {value}")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta must lie in (0, 1), got {self.delta}")
        if not 0 < self.sampling_rate <= 1:
            raise ValueError(
                f"sampling_rate must lie in (0, 1], got {self.sampling_rate}"
            )
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")

    def prepare(self, plan: Plan) -> Self:
        """Fix the noise for the most rounds that any one client takes part in."""
        ready = replace(self, plan=plan)
        if self.noise_multiplier is not None:
            return ready
        target = 8.0 if self.epsilon is None else self.epsilon
        steps = self.steps * plan.participations
        noise = calibrate(target, self.delta, self.sampling_rate, steps)
        return replace(ready, epsilon=None, noise_multiplier=noise)

    def method(self, method: Method) -> Method:
        return method.private_training()

    def in_training(self) -> InteractionDP:
        plan, noise = self._planned()
        return InteractionDP(
            self.clip,
            noise,
            self.sampling_rate,
            self.steps,
            max(1.0, self.sampling_rate * plan.mean_interactions),
        )

    def _planned(self) -> tuple[Plan, float]:
        if self.plan is None or self.noise_multiplier is None:
            raise SettingsError("dp: call prepare(plan) before training")
        return self.plan, self.noise_multiplier

    def guarantee(self) -> Guarantee:
        plan, noise = self._planned()
        steps = self.steps * plan.participations
        spent = epsilon(InteractionRelease(noise, self.sampling_rate, steps), self.delta)
        return Guarantee(
            private=True,
            epsilon=spent.value,
            delta=self.delta,
            unit="interaction",
            relation="add or remove one interaction of one user",
            trust="local: each device noises its own training; the server and all "
            "other clients are untrusted",
            accountant=spent.accountant,
            covers=f"all uploads of a client over {plan.participations} rounds, item "
            "ids included, and every model made from them",
            caveats=(
                f"the denominator {max(1.0, self.sampling_rate * plan.mean_interactions):.0f}"
                " (mean interactions a step) is treated as public",
                "a user's whole history is not the unit: it is protected only by "
                "group privacy",
            ),
        )
