"""Encryption parameters for additions only, at 128-bit security.

Adding needs neither relinearization nor rotations nor a chain of primes, so one prime
and the smallest degree do. Longer moduli than the standard's table allows are refused:
Albrecht et al., Homomorphic Encryption Security Standard, 2018, Table 1 (classical
attacks, ternary secrets).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

from privfed.errors import SettingsError

Scheme = Literal["bfv", "ckks"]
MOST_BITS: Mapping[int, int] = {2048: 54, 4096: 109, 8192: 218}  # by degree
SECURITY = 128
_ERROR = 3.24  # deviation of SEAL's errors, a centered binomial of 42 coins
_DEVIATIONS = 7


@dataclass(frozen=True)
class Parameters:
    """One parameter set.

    A ciphertext holds ``degree`` integers. ``primes`` are the bit lengths of the
    coefficient modulus; the last of several carries no data. ``plain_modulus`` is
    BFV's. ``seeded_room`` and ``full_room`` are bytes for one saved ciphertext with
    and without a seed for one half: sizes vary by some bytes, and envelopes are filled
    up to it.
    """

    name: str
    scheme: Scheme
    degree: int
    primes: tuple[int, ...]
    plain_modulus: int
    seeded_room: int
    full_room: int

    def __post_init__(self) -> None:
        most = MOST_BITS.get(self.degree, 0)
        if sum(self.primes) > most:
            raise ValueError(
                f"{self.name}: degree {self.degree} with {sum(self.primes)} bits of "
                f"modulus is below {SECURITY}-bit security, which allows {most}"
            )

    @property
    def data_bits(self) -> int:
        """Bits of modulus that carry data."""
        return sum(self.primes[:-1] or self.primes)

    @property
    def capacity(self) -> int:
        """The largest absolute value of a sum that is read back right.

        Of CKKS, whose slots hold two numbers each, a quarter of the modulus at most.
        """
        if self.scheme == "ckks":
            return 1 << (self.data_bits - 3)
        return (self.plain_modulus - 1) // 2

    @property
    def noise(self) -> int:
        """How far off a sum may be: CKKS has its noise in the numbers' last digits.

        Ten deviations for a million public-key uploads.
        """
        return self.capacity >> 24 if self.scheme == "ckks" else 0

    def finest(self, seeded: bool) -> float:
        """The most steps that a sum can be told apart in: CKKS' noise covers some."""
        if self.scheme == "bfv":
            return float(self.capacity)
        return self.capacity / (deviation(self.degree, seeded) * sqrt(self.degree))

    def most_terms(self, seeded: bool) -> int:
        """How many uploads BFV's noise leaves readable, at seven deviations."""
        if self.scheme == "ckks":
            return 1_000_000
        fresh = deviation(self.degree, seeded) * self.plain_modulus
        return int((2.0 ** (self.data_bits - 1.1) / (_DEVIATIONS * fresh)) ** 2)

    def room(self, seeded: bool) -> int:
        """Bytes set aside for one ciphertext."""
        return self.seeded_room if seeded else self.full_room


def deviation(degree: int, seeded: bool) -> float:
    """Standard deviation of a fresh ciphertext's noise, for ternary secrets.

    With a public key the noise is e u + f + g s: two products of ``degree`` terms.
    """
    return _ERROR if seeded else _ERROR * sqrt(4 / 3 * degree + 1)


# Plain moduli are the largest primes of 36 to 50 bits that are 1 modulo twice the
# degree: as long as the noise of many thousand uploads leaves room for. A sum travels
# without seeds, so every set has a full room.
LADDERS: Mapping[Scheme, Sequence[Parameters]] = {
    "bfv": (
        Parameters("bfv-2048-36", "bfv", 2048, (54,), 68719464449, 15_680, 31_104),
        Parameters("bfv-2048-40", "bfv", 2048, (54,), 1099511590913, 15_680, 31_104),
        Parameters("bfv-2048-42", "bfv", 2048, (54,), 4398046486529, 15_680, 31_104),
        Parameters(
            "bfv-4096-50",
            "bfv",
            4096,
            (45, 45, 19),
            1125899906826241,
            55_680,
            111_104,
        ),
    ),
    "ckks": (Parameters("ckks-2048", "ckks", 2048, (54,), 0, 15_680, 31_104),),
}


def named(name: str) -> Parameters:
    """A parameter set by its name; raises KeyError where there is none."""
    return {p.name: p for ladder in LADDERS.values() for p in ladder}[name]


def cheapest(scheme: Scheme, seeded: bool, terms: int, steps: float) -> Parameters:
    """The cheapest parameters for sums of ``terms`` numbers of ``steps`` to each side.

    Among equally cheap ones the finest. Raises SettingsError where none has room.
    """
    ladder = LADDERS[scheme]
    fit = [p for p in ladder if _fits(p, seeded, terms, steps)]
    if fit:
        least = min(p.degree for p in fit)
        return [p for p in fit if p.degree == least][-1]
    most = max(p.finest(seeded) / terms / 2 for p in ladder)
    raise SettingsError(
        f"he: {terms} clients a round with numbers of {steps:.3g} steps are more than "
        f"{scheme} has room for, {most:.3g}; give a smaller bound, a coarser "
        "resolution, or take fewer clients a round"
    )


def _fits(parameters: Parameters, seeded: bool, terms: int, steps: float) -> bool:
    enough = 2 * terms * steps <= parameters.finest(
        seeded
    )  # steps are rounded to a power of 2
    return enough and terms <= parameters.most_terms(seeded)


@dataclass(frozen=True)
class Notice:
    """What a server is told of the keys: which they are, and no key."""

    parameters: Parameters
    seeded: bool
    key_id: bytes

    def blocks(self, length: int) -> int:
        """Ciphertexts that a vector takes."""
        return -(-length // self.parameters.degree)
