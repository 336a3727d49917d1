"""Parameters are at 128-bit security, and leave sums room for numbers and noise."""

import pytest
from tenseal import sealapi

from privfed.channels.encrypted.coding import context_of
from privfed.channels.encrypted.parameters import (
    LADDERS,
    MOST_BITS,
    Parameters,
    Scheme,
    cheapest,
    named,
)
from privfed.errors import SettingsError

EVERY = [p for ladder in LADDERS.values() for p in ladder]


@pytest.mark.parametrize("parameters", EVERY, ids=lambda p: p.name)
def test_every_set_is_secure_by_the_table_and_by_seal(parameters: Parameters) -> None:
    assert sum(parameters.primes) <= MOST_BITS[parameters.degree]
    assert context_of(parameters).parameters_set()
    assert named(parameters.name) is parameters


@pytest.mark.parametrize("degree", MOST_BITS)
def test_the_table_is_seal_s(degree: int) -> None:
    level = sealapi.SEC_LEVEL_TYPE.TC128
    assert sealapi.CoeffModulus.MaxBitCount(degree, level) == MOST_BITS[degree]


@pytest.mark.parametrize(
    ("degree", "primes"),
    [(2048, (55,)), (4096, (55, 55)), (1024, (27,)), (8192, (60, 60, 60, 60))],
)
def test_less_security_is_refused(degree: int, primes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="128-bit security"):
        Parameters("weak", "bfv", degree, primes, 65537, 1, 1)


@pytest.mark.parametrize("parameters", LADDERS["bfv"], ids=lambda p: p.name)
def test_plain_moduli_are_primes_that_allow_batching(parameters: Parameters) -> None:
    modulus = parameters.plain_modulus
    bits = modulus.bit_length()
    largest = sealapi.PlainModulus.Batching(parameters.degree, bits).value()

    assert modulus == largest
    assert modulus % (2 * parameters.degree) == 1


@pytest.mark.parametrize(
    ("scheme", "seeded", "clients", "name"),
    [
        ("bfv", True, 943, "bfv-2048-42"),
        ("bfv", True, 50_000, "bfv-2048-40"),
        ("bfv", False, 943, "bfv-2048-36"),
        ("bfv", True, 100_000, "bfv-4096-50"),
        ("ckks", True, 943, "ckks-2048"),
    ],
)
def test_the_cheapest_with_room_is_taken(
    scheme: Scheme, seeded: bool, clients: int, name: str
) -> None:
    found = cheapest(scheme, seeded, clients, 5e6)

    assert found.name == name
    assert clients <= found.most_terms(seeded)
    assert clients * 5e6 <= found.capacity


@pytest.mark.parametrize("scheme", LADDERS)
def test_what_nothing_has_room_for_is_refused_with_the_mend(scheme: Scheme) -> None:
    with pytest.raises(SettingsError, match=r"smaller bound.*coarser resolution"):
        cheapest(scheme, True, 10_000, 1e12)
