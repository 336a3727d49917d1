"""Interaction-level differential privacy by DP-SGD on the device."""

from dataclasses import dataclass

from privfed.accounting.guarantee import Guarantee, not_private
from privfed.accounting.interaction import InteractionRelease, calibrate, epsilon
from privfed.devices.dpsgd import Entangled, InteractionDP
from privfed.errors import SettingsError
from privfed.interfaces import Defense, FromTotal, Method, PerInteraction, Plan


@dataclass(frozen=True)
class DP(Defense):
    """DP-SGD in local training: clip each interaction, noise every number.

    Give ``epsilon`` to have the noise calibrated to it (8 by default), or
    ``noise_multiplier`` to have its epsilon reported; a multiplier of 0 clips and
    guarantees nothing, which tells the cost of clipping from that of noise. Guarantee:
    whoever sees all of a client's uploads, and every model made from them, learns of
    any one of its interactions no more than (epsilon, delta) allows. That covers the
    item ids: every row of every table is noised and sent. Private tensors that uploads
    depend on are noised as well. It does not cover a user's whole history, nor how
    often a client takes part.

    All that is shared learns at one rate, the least of the method's. What one client
    alone trains learns at ``own_rate`` times that: noise on it is not averaged over
    clients, but neither is what it learns.
    """

    epsilon: float | None = None
    noise_multiplier: float | None = None
    delta: float = 1e-5
    clip: float = 0.5
    sampling_rate: float = 1.0
    steps: int = 1  # local steps in a round
    own_rate: float = 1.0

    hides = "whether a client has any one interaction, item ids included"
    does_not_hide = "a user's whole history; who takes part, and how often"
    unit = "interaction: one added or removed"
    trust = "nobody: each device noises its own training"
    cost = "dense uploads; much accuracy, since each device adds its own noise"
    paper = "Abadi et al., CCS 2016, on the device"

    def __post_init__(self) -> None:
        if self.epsilon is not None and self.noise_multiplier is not None:
            raise ValueError("give epsilon or noise_multiplier, not both")
        for name in ("epsilon", "clip", "own_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} must be positive, got {value}")
        noise = self.noise_multiplier
        if noise is not None and not 0 <= noise < float("inf"):
            raise ValueError(f"noise_multiplier must be 0 or more, got {noise}")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta must lie in (0, 1), got {self.delta}")
        if not 0 < self.sampling_rate <= 1:
            raise ValueError(
                f"sampling_rate must lie in (0, 1], got {self.sampling_rate}"
            )
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")

    def prepare(self, plan: Plan) -> "CalibratedDP":
        """Fix the noise for the most rounds that any one client takes part in."""
        if plan.sampling.kind == "interactions":
            raise SettingsError(
                "dp: with --sampling interactions a client takes part when one of its "
                "interactions is drawn, which everybody sees; take --sampling all and "
                "dp:sampling_rate"
            )
        noise = self.noise_multiplier
        if noise is None:
            target = 8.0 if self.epsilon is None else self.epsilon
            steps = self.steps * plan.participations
            noise = calibrate(target, self.delta, self.sampling_rate, steps)
        expected = max(1.0, self.sampling_rate * plan.mean_interactions)
        rule = InteractionDP(
            self.clip,
            noise,
            self.sampling_rate,
            self.steps,
            round(expected),
            self.own_rate,
        )
        return CalibratedDP(rule, self.delta, plan.participations)

    def method(self, method: Method) -> Method:
        return _private(method)


@dataclass(frozen=True)
class CalibratedDP(Defense):
    """DP-SGD whose noise is known; made by ``DP.prepare``."""

    rule: InteractionDP
    delta: float
    participations: int

    def method(self, method: Method) -> Method:
        return _private(method)

    def in_training(self) -> InteractionDP:
        return self.rule

    def sends_every_row(self) -> bool:
        return True

    def guarantee(self) -> Guarantee:
        rule = self.rule
        if rule.noise_multiplier == 0:
            return _clipped_only(rule)
        release = InteractionRelease(
            rule.noise_multiplier, rule.sampling_rate, rule.steps * self.participations
        )
        spent = epsilon(release, self.delta)
        return Guarantee(
            private=True,
            epsilon=spent.value,
            delta=self.delta,
            unit="interaction",
            relation="add or remove one interaction of one user",
            trust="local: each device noises its own training; the server and all "
            "other clients are untrusted",
            accountant=spent.accountant,
            covers=f"all uploads of a client over {self.participations} rounds, item "
            "ids included, and every model made from them",
            caveats=(
                f"noise multiplier {rule.noise_multiplier:.3g}, clipping norm "
                f"{rule.clip:g}, {rule.steps} local step(s) a round",
                f"the denominator {rule.expected:g} (mean interactions a step) is "
                "treated as public, and so is that a client has any interaction at all",
                "outside the guarantee: validation figures, which choose the round "
                "that is reported, and the noise's own quality (floating point, a "
                "generator that is not cryptographic)",
                "a user's whole history is not the unit: it is protected only by "
                "group privacy",
            ),
        )


def _clipped_only(rule: InteractionDP) -> Guarantee:
    return not_private(
        trust="the server sees each upload",
        covers=f"how much one interaction can change an upload (norm {rule.clip:g})",
        caveats=("noise_multiplier is 0: nothing is noised",),
    )


def _private(method: Method) -> Method:
    if isinstance(method, PerInteraction):
        return method.private_training()
    name = type(method).__name__
    why = f": {method.entangled}" if isinstance(method, Entangled) else ""
    other = "user_dp" if isinstance(method, FromTotal) else "ldp"
    raise SettingsError(
        f"dp: {name} has no training in which DP-SGD clips by interaction{why}; "
        f"take --defense {other} instead"
    )
