"""What one run measured: plain values, ready for JSON and for a table."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from privfed.accounting.guarantee import Guarantee

SCHEMA = "privfed.result/1"


@dataclass(frozen=True)
class Figure:
    """A measured number and its 95 % interval; ``over`` says what was resampled.

    With ``over`` "range" it is a median over seeds, with the least and the largest.
    """

    value: float
    low: float | None = None
    high: float | None = None
    over: str = ""  # "clients", "seeds", "range" or "" where there is no interval


@dataclass(frozen=True)
class Result:
    """One row of privfed's table.

    ``figures`` maps a key such as ``utility.hr@10``, ``leakage.sign_pc.f1`` or
    ``cost.bytes_up`` to its figure. ``references`` holds, for the same keys, what
    an untrained or prior-only contestant reaches (``popularity``, ``prior``).
    """

    id: str
    method: str
    defenses: tuple[str, ...]
    attacks: tuple[str, ...]
    data: Mapping[str, Any]  # name, clients, items, interactions, split, fingerprint
    protocol: str  # e.g. "99 sampled negatives, excluding training items"
    seeds: tuple[int, ...]
    figures: Mapping[str, Figure]
    references: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    privacy: Mapping[str, Guarantee] = field(default_factory=dict)  # by defense
    adversaries: Mapping[str, str] = field(default_factory=dict)  # attack -> its means
    not_applicable: Mapping[str, str] = field(default_factory=dict)  # attack -> why
    notes: tuple[str, ...] = ()
    rounds: tuple[Mapping[str, float], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    schema: str = SCHEMA

    def json(self) -> dict[str, Any]:
        """The result as JSON types."""
        return asdict(self)
