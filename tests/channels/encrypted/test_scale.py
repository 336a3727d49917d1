"""A round of MovieLens 100K's size: exact, within its time and bytes, memory flat."""

import resource
import sys

import numpy as np
import pytest

from privfed.channels.encrypted.device import Device
from privfed.channels.encrypted.keys import KeyHolder
from privfed.channels.encrypted.parameters import Scheme, cheapest
from privfed.channels.encrypted.server import Server
from tests.channels.encrypted.parties import KINDS, ROUND, job

pytestmark = pytest.mark.slow
CLIENTS, LENGTH = 943, 1682 * 64


@pytest.mark.parametrize(("scheme", "seeded"), KINDS)
def test_the_sum_of_943_uploads(scheme: Scheme, seeded: bool) -> None:
    keys = KeyHolder(cheapest(scheme, seeded, CLIENTS, 5e6), seeded, 2)
    parameters = keys.notice.parameters
    device = Device(keys.credentials)
    server = Server(keys.notice, ROUND, LENGTH, range(CLIENTS))
    most = parameters.capacity // CLIENTS
    rng, exact, size = np.random.default_rng(0), np.zeros(LENGTH, np.int64), 0
    for client in range(CLIENTS):
        vector = rng.integers(-most, most + 1, LENGTH)
        envelope = device.seal(job(client, vector, parameters.degree))
        size, exact = len(envelope), exact + vector
        server.receive(envelope)

    found, count = keys.read(server.sum(), ROUND, LENGTH)

    assert count == CLIENTS
    if scheme == "bfv":
        assert np.array_equal(found, exact)
    off = np.abs(found - exact).max() / parameters.capacity
    assert off < (1e-10 if seeded else 1e-8)
    assert size / (4 * LENGTH) < (2 if seeded else 4)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the resident size of Linux")
def test_memory_is_flat_over_a_thousand_uploads() -> None:
    keys = KeyHolder(cheapest("bfv", True, 1200, 5e6), True, 2)
    degree, device = keys.notice.parameters.degree, Device(keys.credentials)
    server = Server(keys.notice, ROUND, LENGTH, range(1200))
    vector = np.arange(LENGTH, dtype=np.int64)

    def carry(clients: range) -> int:
        for client in clients:
            server.receive(device.seal(job(client, vector, degree)))
        return _resident()

    after_some = carry(range(100))
    after_all = carry(range(100, 1100))

    assert after_all - after_some < 16 * 2**20


def _resident() -> int:
    """Bytes resident now, not at most."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
