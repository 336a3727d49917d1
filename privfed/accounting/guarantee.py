"""What a defense promises, in words that can be checked."""

import math
from dataclasses import dataclass

OUTSIDE = (
    "outside the guarantee: validation figures, which choose the round that is "
    "reported, and the noise's own quality (floating point, a generator that is not "
    "cryptographic)"
)


@dataclass(frozen=True)
class Guarantee:
    """What a defense promises, in checkable words; ``private``: whether it is DP."""

    private: bool
    epsilon: float | None
    delta: float | None
    unit: str  # "interaction" or "user"; "none" where nothing is promised
    relation: str  # the neighboring relation
    trust: str  # who sees what, and who must be trusted
    accountant: str
    covers: str
    caveats: tuple[str, ...] = ()

    def sentence(self) -> str:
        """The promise, its limits included, in one sentence."""
        caveats = "".join(f"; {caveat}" for caveat in self.caveats)
        if not self.private or self.epsilon is None or self.delta is None:
            return (
                f"No differential privacy: this changes {self.covers}; "
                f"{self.trust}{caveats}."
            )
        return (
            f"({_upward(self.epsilon)}, {self.delta:g})-differential privacy of one "
            f"{self.unit} ({self.relation}), by {self.accountant}; covers "
            f"{self.covers}; {self.trust}{caveats}."
        )


def _upward(epsilon: float) -> str:
    """Three digits, rounded up: a printed epsilon may never be too small."""
    if not 0 < epsilon < math.inf:
        return f"{epsilon:g}"
    unit = 10.0 ** (math.floor(math.log10(epsilon)) - 2)
    return f"{math.ceil(epsilon / unit - 1e-9) * unit:.6g}"


def not_private(covers: str, trust: str, caveats: tuple[str, ...] = ()) -> Guarantee:
    """What a mechanism that is no differential privacy says of itself."""
    return Guarantee(
        private=False,
        epsilon=None,
        delta=None,
        unit="none",
        relation="none",
        trust=trust,
        accountant="none",
        covers=covers,
        caveats=caveats,
    )
