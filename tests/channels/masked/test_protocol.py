"""Sums come out exact, and nobody is handed what opens a single vector."""

from collections.abc import Iterator

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from privfed.channels.masked import keys, shamir
from privfed.channels.masked.cover import Whole
from privfed.channels.masked.device import Device
from privfed.channels.masked.packing import unpack
from privfed.channels.masked.protocol import Protocol
from privfed.channels.masked.server import Server
from privfed.channels.masked.wire import Refused, Request, Revealed
from privfed.errors import PrivfedError
from tests.channels.masked.parties import begun, naive_mask, sent, stream, vectors


@given(
    clients=st.integers(2, 9),
    size=st.integers(1, 20),
    bits=st.sampled_from([9, 16, 26, 32, 40, 64]),
    data=st.data(),
)
def test_the_sum_is_that_of_the_survivors(
    clients: int, size: int, bits: int, data: st.DataObject
) -> None:
    protocol = begun(clients, size, bits=bits, threshold=(clients + 1) // 2 or 1)
    given = vectors(clients, size, bits)
    most = (clients - 1) - protocol.server.rules.threshold  # neighbors that may go
    who = st.lists(st.integers(0, clients - 1), max_size=max(0, most), unique=True)
    dropped = data.draw(who)

    total = sent(protocol, given, dropped)

    left = [k for k in range(clients) if k not in dropped]
    assert total.tolist() == given[left].astype(object).sum(0).tolist()


@pytest.mark.parametrize("degree", [2, 4, 6])
def test_a_sparse_ring_sums_as_exactly(degree: int) -> None:
    given = vectors(12, 30, 32)

    total = sent(begun(12, 30, degree, threshold=degree // 2 + 1), given)

    assert (total == given.sum(0)).all()


def test_sums_that_come_to_the_modulus_wrap_as_integers_do() -> None:
    given = np.full((5, 3), 2**31, np.uint32)

    assert sent(begun(5, 3), given).tolist() == [5 * 2**31 % 2**32] * 3


@pytest.mark.parametrize("bits", [26, 32, 50])
def test_what_devices_send_is_the_papers_formula(bits: int) -> None:
    """Against the masks computed naively from all secrets."""
    protocol, given = begun(4, 7, bits=bits), vectors(4, 7, bits)
    cover = Whole(3)
    for client, vector in enumerate(given):
        inbox = protocol.server.mail_for(client)
        packed = protocol.devices[client].mask(
            vector, inbox, cover.own(client), protocol.masks
        )
        mask = naive_mask(protocol.devices, client, 7)

        expected = [(int(v) + m) % 2**bits for v, m in zip(vector, mask, strict=True)]
        assert unpack(packed, 7, bits).tolist() == expected


def test_masks_of_all_clients_but_their_own_cancel() -> None:
    protocol = begun(6, 5)
    masks = [naive_mask(protocol.devices, k, 5) for k in range(6)]
    own = [stream(device.seed, 5, 32) for device in protocol.devices]

    for place in range(5):
        pairs = sum(m[place] - o[place] for m, o in zip(masks, own, strict=True))
        assert pairs % 2**32 == 0


class Spy(Server):
    """A server that keeps every packed vector it received."""

    seen: dict[int, np.ndarray]

    def receive(self, client, packed, cover):  # type: ignore[no-untyped-def]
        self.seen = {**getattr(self, "seen", {}), client: packed}
        super().receive(client, packed, cover)


def spied(protocol: Protocol) -> Spy:
    old = protocol.server
    spy = Spy(old.rules, old.graph, old.size, old.known, old.mail)
    protocol.server = spy
    return spy


def test_a_masked_vector_looks_uniform_and_unrelated_to_the_plain_one() -> None:
    size = 20_000
    protocol = begun(6, size)
    spy = spied(protocol)
    ramp = np.tile(np.arange(size, dtype=np.uint32), (6, 1))

    sent(protocol, ramp)

    for client in range(6):
        words = unpack(spy.seen[client], size, 32)
        histogram = np.histogram(words, 256, (0, 2**32))[0]
        assert chisquare(histogram).pvalue > 1e-7
        assert abs(words.mean() / 2**32 - 0.5) < 6 / np.sqrt(12 * size)
        assert abs(np.corrcoef(words, ramp[client])[0, 1]) < 6 / np.sqrt(size)


def test_two_rounds_of_one_vector_look_unrelated() -> None:
    first, second = (begun(5, 20_000) for _ in range(2))
    spies = [spied(first), spied(second)]
    given = vectors(5, 20_000, 32)

    for protocol in (first, second):
        sent(protocol, given)

    one, other = (unpack(spy.seen[2], 20_000, 32) for spy in spies)
    assert (one != other).mean() > 0.999


def held(part: object) -> Iterator[object]:
    """Everything reachable from an object's fields and their items."""
    yield part
    if isinstance(part, dict):
        inner = [*part, *part.values()]
    elif isinstance(part, list | tuple):
        inner = list(part)
    else:
        inner = list(getattr(part, "__dict__", {}).values())
    for one in inner:
        yield from held(one)


def test_the_server_never_holds_a_secret_of_a_client() -> None:
    protocol = begun(6, 4)
    sent(protocol, vectors(6, 4, 32), dropped=[1])

    reached = list(held(protocol.server))

    assert not any(isinstance(one, X25519PrivateKey | Device) for one in reached)
    seeds = {device.seed for device in protocol.devices}
    assert not seeds & {one for one in reached if isinstance(one, bytes)}
    assert any(isinstance(one, X25519PrivateKey) for one in held(protocol.devices[0]))


def test_secrets_are_not_printed() -> None:
    device = begun(3, 2).devices[0]

    assert device.seed.hex() not in repr(device)
    assert str(device.seed) not in repr(device)
    assert "PrivateKey" not in repr(device)


def ready_to_answer(dropped: int = 1) -> Protocol:
    """Everybody but one has sent."""
    protocol, cover = begun(6, 4), Whole(5)
    for client in range(6):
        if client != dropped:
            protocol.send(client, vectors(6, 4, 32)[client], cover)
    return protocol


def test_a_survivors_seed_and_a_dropped_clients_key_are_what_answers_rebuild() -> None:
    protocol = ready_to_answer()
    server, devices = protocol.server, protocol.devices
    answers = {k: devices[k].reveal(server.request_for(k)) for k in (0, 2, 3, 4, 5)}

    rebuilt = server._rebuilt(answers)

    for client, secret in enumerate(rebuilt):
        if client == 1:
            assert secret.tobytes() == devices[1]._masking.private_bytes_raw()
        else:
            assert secret.tobytes() == devices[client].seed


def test_nobody_is_asked_for_both_secrets_of_a_client() -> None:
    server = ready_to_answer().server
    requests = [server.request_for(k) for k in (0, 2, 3, 4, 5)]

    for client in range(6):
        asked = {
            "seed" if client in one.survivors else "key"
            for one in requests
            if client in one.survivors or client in one.dropped
        }
        assert asked == ({"key"} if client == 1 else {"seed"})


BOTH = Request(np.array([1, 2, 3, 4, 5]), np.array([1]), 6)
TWICE = Request(np.array([2, 2, 3, 4, 5]), np.array([], np.int64), 6)
NOT_ALL = Request(np.array([2, 3, 4]), np.array([1]), 6)
STRANGER = Request(np.array([0, 2, 3, 4]), np.array([1]), 6)
TOO_FEW_LEFT = Request(np.array([2, 3]), np.array([1, 4, 5]), 6)
TOO_SMALL_A_SUM = Request(np.array([2, 3, 4, 5]), np.array([1]), 1)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (BOTH, "both shares of client .1. were asked for"),
        (TWICE, "names each neighbor once"),
        (NOT_ALL, "names each neighbor once"),
        (STRANGER, "names each neighbor once"),
        (TOO_FEW_LEFT, "only 2 neighbors are left"),
        (TOO_SMALL_A_SUM, "the sum is over 1 clients only"),
    ],
)
def test_a_device_refuses_what_would_open_an_upload(
    request_: Request, why: str
) -> None:
    with pytest.raises(Refused, match=why):
        ready_to_answer().devices[0].reveal(request_)


def test_a_device_answers_once() -> None:
    protocol = ready_to_answer()
    request = protocol.server.request_for(0)
    protocol.devices[0].reveal(request)

    with pytest.raises(Refused, match="answers once"):
        protocol.devices[0].reveal(request)


def test_a_device_that_sent_nothing_reveals_nothing() -> None:
    protocol = ready_to_answer(dropped=1)

    with pytest.raises(Refused, match="answers once, last"):
        protocol.devices[1].reveal(protocol.server.request_for(1))


def test_stages_come_in_order_and_once() -> None:
    protocol, cover = begun(4, 3), Whole(3)
    vector = vectors(4, 3, 32)[0]
    fresh = Device(protocol.server.rules, 0, protocol.server.graph.neighbors[0])
    inbox, known = protocol.server.mail_for(0), protocol.server.keys_for(0)

    with pytest.raises(Refused, match="masking comes once, third"):
        fresh.mask(vector, inbox, cover.own(0), protocol.masks)
    with pytest.raises(Refused, match="shared already"):
        protocol.devices[0].share(known)
    protocol.send(0, vector, cover)
    with pytest.raises(Refused, match="masking comes once"):
        protocol.send(0, vector, cover)
    with pytest.raises(Refused, match="second vector"):
        protocol.server.receive(0, np.zeros(12, np.uint8), cover)


def test_a_server_that_lies_about_who_dropped_out_gets_no_second_secret() -> None:
    """Half of the neighbors are told that client 0 survived, half that it did not.

    More than half must say the same, so one secret at most can be rebuilt.
    """
    clients = 9
    protocol, cover = begun(clients, 3), Whole(clients - 1)
    given = vectors(clients, 3, 32)
    for client in range(clients):
        protocol.send(client, given[client], cover)
    shares: dict[str, int] = {"seed": 0, "key": 0}
    for client in range(1, clients):
        others = protocol.server.graph.neighbors[client]
        lie = client % 2 == 0
        request = Request(others[others > 0] if lie else others, others[:lie], clients)
        protocol.devices[client].reveal(request)
        shares["key" if lie else "seed"] += 1

    assert max(shares.values()) < protocol.server.rules.threshold


def test_some_may_fail_to_answer() -> None:
    protocol = ready_to_answer()
    server, given = protocol.server, vectors(6, 4, 32)
    who = (0, 3, 4, 5)  # of 5 survivors, with a threshold of 3
    answers = {k: protocol.devices[k].reveal(server.request_for(k)) for k in who}

    total = server.open(answers, Whole(5))

    assert (total == given[[0, 2, 3, 4, 5]].sum(0)).all()


def test_too_few_answers_lose_the_round_with_the_reason() -> None:
    protocol = ready_to_answer()
    answers = {
        k: protocol.devices[k].reveal(protocol.server.request_for(k)) for k in (0, 3)
    }

    with pytest.raises(PrivfedError, match="needs 3 shares, so the round is lost"):
        protocol.server.open(answers, Whole(5))


def test_too_many_dropouts_lose_the_round_with_the_mend() -> None:
    protocol = begun(6, 4)

    with pytest.raises(PrivfedError, match="lower dropout or raise neighbors"):
        sent(protocol, vectors(6, 4, 32), dropped=[0, 1, 2])


def test_wrong_shares_of_a_dropped_client_are_noticed() -> None:
    protocol = ready_to_answer()
    server = protocol.server
    answers = {
        k: protocol.devices[k].reveal(server.request_for(k)) for k in (0, 2, 3, 4, 5)
    }
    place = int(np.searchsorted(server.graph.neighbors[0], 1))
    shares = answers[0].shares.copy()
    shares[place, 5] = (shares[place, 5] + 1) % shamir.PRIME
    answers[0] = Revealed(shares)

    with pytest.raises(PrivfedError, match="some client sent wrong ones"):
        server.open(answers, Whole(5))


def test_a_changed_message_between_clients_is_noticed() -> None:
    protocol, cover = begun(4, 3), Whole(3)
    mail = [list(letters) for letters in protocol.server.mail]
    mail[1][0] = bytes([mail[1][0][0] ^ 1]) + mail[1][0][1:]
    protocol.server.mail = mail
    for client, vector in enumerate(vectors(4, 3, 32)):
        protocol.send(client, vector, cover)

    with pytest.raises(Refused, match="changed on its way"):
        protocol.finish(cover)


def test_sealed_shares_are_for_their_recipient_alone() -> None:
    protocol = begun(4, 3)
    letter = protocol.server.mail[0][0]  # from 0 to 1
    outsider = protocol.devices[2]

    for pair in outsider._pairs:
        for key in (pair[: keys.KEY_BYTES], pair[keys.KEY_BYTES :]):
            with pytest.raises(ValueError, match="changed on its way"):
                keys.unseal(key, letter)


def test_every_byte_is_counted_by_stage() -> None:
    clients, size, bits, degree = 12, 100, 26, 6
    protocol = begun(clients, size, degree, bits)
    sent(protocol, vectors(clients, size, bits), dropped=[4])

    up = {stage: cost.bytes_up for stage, cost in protocol.costs.items()}
    down = {stage: cost.bytes_down for stage, cost in protocol.costs.items()}
    letters = [letter for one in protocol.server.mail for letter in one]

    assert up == {
        "keys": clients * 64,
        "shares": sum(map(len, letters)),
        "masked input": (clients - 1) * 325,  # 100 numbers of 26 bits
        "unmasking": (clients - 1) * degree * 36,
    }
    assert down == {
        "keys": clients * degree * 64,
        "shares": sum(map(len, letters)),
        "masked input": 0,
        "unmasking": (clients - 1) * (1 + 4),
    }
    assert len(letters) == clients * degree
