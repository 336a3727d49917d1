"""What devices encrypt, a server adds and a key holder decrypts: sums, or a refusal."""

import gc
import os
import struct

import numpy as np
import pytest
from tenseal import sealapi

from privfed.channels.encrypted.coding import coder_of, context_of
from privfed.channels.encrypted.envelope import Refused
from privfed.channels.encrypted.keys import Credentials
from privfed.channels.encrypted.parameters import LADDERS, Parameters, Scheme
from privfed.channels.encrypted.scratch import Scratch
from privfed.errors import SettingsError
from tests.channels.encrypted.parties import (
    KINDS,
    LENGTH,
    ROUND,
    added,
    holder,
    sealed,
    server,
    vectors,
)

EVERY = [p for ladder in LADDERS.values() for p in ladder]


@pytest.mark.parametrize("parameters", EVERY, ids=lambda p: p.name)
def test_integers_up_to_the_capacity_come_back(parameters: Parameters) -> None:
    coder = coder_of(parameters, context_of(parameters))
    most = parameters.capacity
    numbers = np.random.default_rng(0).integers(-most, most + 1, parameters.degree)
    numbers[:2] = most, -most

    back = coder.decode(coder.encode(numbers))

    assert np.abs(back - numbers).max() <= parameters.noise


@pytest.mark.parametrize(("scheme", "seeded"), KINDS)
def test_the_sum_is_that_of_the_vectors(scheme: Scheme, seeded: bool) -> None:
    keys = holder(scheme, seeded)
    given = vectors(5, keys.notice.parameters.capacity // 5)

    found, count = keys.read(added(keys, given), ROUND, LENGTH)

    exact = np.sum(given, 0)
    assert count == 5
    assert np.abs(found - exact).max() <= keys.notice.parameters.noise
    assert (scheme == "bfv") == bool((found == exact).all())


@pytest.mark.parametrize(("scheme", "seeded"), KINDS)
def test_a_sum_under_another_key_raises_whatever_it_says_it_is(
    scheme: Scheme, seeded: bool
) -> None:
    keys, others = holder(scheme, seeded), holder(scheme, seeded)
    message = added(keys, vectors(3, 1000))

    with pytest.raises(Refused, match="another key"):
        others.read(message, ROUND, LENGTH)
    forged = message.replace(keys.notice.key_id, others.notice.key_id)
    with pytest.raises(Refused, match="another key"):
        others.read(forged, ROUND, LENGTH)


def test_sums_of_few_are_not_decrypted() -> None:
    keys = holder(least=4)
    few, enough = added(keys, vectors(3, 9)), added(keys, vectors(4, 9))

    with pytest.raises(SettingsError, match="min_cohort=4"):
        keys.read(few, ROUND, LENGTH)
    assert keys.read(enough, ROUND, LENGTH)[1] == 4


def test_the_server_takes_an_upload_once_and_from_the_cohort_only() -> None:
    keys = holder()
    first, second, third = sealed(keys, vectors(3, 9))
    there = server(keys, 2)

    assert there.receive(first) == 0
    for again in (first, third):
        with pytest.raises(Refused, match="not asked for, or sent already"):
            there.receive(again)
    there.receive(second)
    assert keys.read(there.sum(), ROUND, LENGTH)[1] == 2


def test_the_server_refuses_uploads_of_other_rounds_and_keys() -> None:
    keys = holder()
    there = server(keys, 2)
    late = sealed(keys, vectors(1, 9), round=ROUND - 1)[0]
    foreign = sealed(holder(), vectors(1, 9))[0]

    with pytest.raises(Refused, match="of round 2, not of 3"):
        there.receive(late)
    with pytest.raises(Refused, match="another key"):
        there.receive(foreign)


def test_a_damaged_ciphertext_is_refused_or_read_but_never_crashes() -> None:
    keys = holder()
    (good,) = sealed(keys, vectors(1, 9))
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        bad = bytearray(good)
        at = rng.integers(41 + 8, 41 + 8 + 15_000)
        bad[at : at + 4] = rng.bytes(4)
        try:
            server(keys, 1).receive(bytes(bad))
        except Refused:
            refused += 1
    assert refused > 100  # compression notices most changes


def test_a_refused_upload_leaves_the_sum_alone() -> None:
    """Its first ciphertext is whole, its last is not."""
    keys = holder()
    given = vectors(3, 9)
    bad, *good = sealed(keys, given)
    there = server(keys, 3)
    block = bytearray(bad)
    size = struct.unpack_from("<I", block, 41 + 4)[0]
    size += struct.unpack_from("<I", block, 41 + 8 + size + 4)[0]
    block[41 + 16 + size + 8 + 200 :] = bytes(len(block) - (41 + 16 + size + 8 + 200))
    with pytest.raises(Refused):
        there.receive(bytes(block))

    for envelope in good:
        there.receive(envelope)

    found, count = keys.read(there.sum(), ROUND, LENGTH)
    assert count == 2
    assert np.array_equal(found, given[1] + given[2])


@pytest.mark.parametrize(("scheme", "seeded"), KINDS)
def test_the_server_holds_no_secret_key(scheme: Scheme, seeded: bool) -> None:
    keys = holder(scheme, seeded)
    there = server(keys, 3)
    for envelope in sealed(keys, vectors(3, 9)):
        there.receive(envelope)
    secret = keys.credentials.key
    forbidden = (
        sealapi.SecretKey,
        sealapi.Decryptor,
        sealapi.KeyGenerator,
        sealapi.Encryptor,
        Credentials,
        type(keys),
    )

    for thing in _reachable(there):
        assert not isinstance(thing, forbidden)
        assert not (isinstance(thing, bytes) and secret[64:128] in thing)


def _reachable(start: object) -> list[object]:
    """All that an object refers to, but no module or class."""
    seen, waiting = {id(start): start}, [start]
    while waiting:
        for thing in gc.get_referents(waiting.pop()):
            if isinstance(thing, type) or hasattr(thing, "__file__"):
                continue
            if id(thing) not in seen and not callable(thing):
                seen[id(thing)] = thing
                waiting.append(thing)
    return list(seen.values())


def test_the_search_for_a_key_finds_one_that_is_there() -> None:
    keys = holder()
    found = _reachable(keys)

    assert any(isinstance(thing, sealapi.Decryptor) for thing in found)
    assert any(isinstance(thing, Credentials) for thing in found)


@pytest.mark.parametrize("scheme", LADDERS)
def test_public_credentials_do_not_decrypt(scheme: Scheme) -> None:
    """With a key authority, what devices have is a public key and nothing else."""
    keys = holder(scheme, seeded=False)
    context = context_of(keys.notice.parameters)
    scratch = Scratch()

    scratch.load(sealapi.PublicKey(), context, keys.credentials.key)
    with pytest.raises(ValueError, match=r"\w"):
        scratch.load(sealapi.SecretKey(), context, keys.credentials.key)


def test_a_key_is_not_printed() -> None:
    credentials = holder().credentials
    assert "key=" not in repr(credentials).replace("key_id=", "")
    assert Credentials.unpack(credentials.pack()) == credentials


def test_the_same_upload_never_encrypts_the_same_twice() -> None:
    keys = holder()
    (given,) = vectors(1, 9)
    first, second = sealed(keys, [given]), sealed(keys, [given])
    assert first != second
    assert len(first[0]) == len(second[0])


@pytest.mark.parametrize("parameters", LADDERS["bfv"][:3], ids=lambda p: p.name)
def test_the_noise_is_as_large_as_parameters_are_chosen_for(
    parameters: Parameters,
) -> None:
    """What 300 uploads leave of the budget tells how many more would fit."""
    seeded = not parameters.name.endswith("36")
    most = parameters.most_terms(seeded)
    context = context_of(parameters)
    generator = sealapi.KeyGenerator(context)
    public, secret = sealapi.PublicKey(), generator.secret_key()
    generator.create_public_key(public)
    encryptor = sealapi.Encryptor(context, secret if seeded else public)
    evaluator = sealapi.Evaluator(context)
    scratch = Scratch()
    sum_ = None
    for _ in range(300):
        one = sealapi.Ciphertext(context)
        if seeded:
            fresh = scratch.save(encryptor.encrypt_zero_symmetric())
            scratch.load(one, context, fresh)
        else:
            encryptor.encrypt_zero(one)
        if sum_ is None:
            sum_ = one
        else:
            evaluator.add_inplace(sum_, one)

    left = sealapi.Decryptor(context, secret).invariant_noise_budget(sum_)

    # a budget in whole bits, of the largest of 2,048 coefficients: some four deviations
    expected = np.log2(np.sqrt(most / 300) * 7 / 4)
    assert abs(left - expected) < 1.6


def test_files_do_not_pile_up() -> None:
    """Ciphertexts pass through one unnamed file of each party, gone with it."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    keys, given = holder(), vectors(1, 9)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        server(keys, 1).receive(*sealed(keys, given))
    assert len(os.listdir("/proc/self/fd")) <= before + 1
