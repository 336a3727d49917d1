"""Processes that encrypt: light, of no influence on results, and gone at the end."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from privfed.channels.encrypted.pool import Pool
from privfed.errors import PrivfedError
from tests.channels.encrypted.parties import LENGTH, ROUND, holder, job, server, vectors


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order_and_add_up(workers: int) -> None:
    keys = holder()
    given = vectors(9, 1000)
    degree = keys.notice.parameters.degree
    there = server(keys, 9)

    with Pool(keys.credentials, workers) as pool:
        sealed = pool.seal(job(k, v, degree) for k, v in enumerate(given))
        senders = [there.receive(envelope) for envelope, _ in sealed]
        seconds = [s for _, s in pool.seal([job(0, given[0], degree)])]

    assert senders == list(range(9))
    assert np.array_equal(keys.read(there.sum(), ROUND, LENGTH)[0], np.sum(given, 0))
    assert 0 < seconds[0] < 60


def test_a_process_imports_no_torch() -> None:
    told = (
        "import sys, privfed.channels.encrypted.worker, "
        "privfed.channels.encrypted.device; print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True)
    assert found.stdout.strip() == "False", found.stderr


def test_a_job_that_cannot_be_done_says_why() -> None:
    keys = holder()
    (given,) = vectors(1, 9)
    wrong = job(0, given, 1024 + keys.notice.parameters.degree)
    with (
        Pool(keys.credentials, 1) as pool,
        pytest.raises(PrivfedError, match=r"encryption process failed: .*values"),
    ):
        list(pool.seal([wrong]))


def test_a_process_that_dies_is_told_with_the_mend() -> None:
    keys = holder()
    (given,) = vectors(1, 9)
    one = job(0, given, keys.notice.parameters.degree)
    with Pool(keys.credentials, 1) as pool:
        (process,) = pool._processes
        process.kill()
        process.wait()
        with pytest.raises(PrivfedError, match=r"ended with code -9.*workers=1"):
            list(pool.seal([one]))


def test_no_process_is_left() -> None:
    with Pool(holder().credentials, 2) as pool:
        processes = list(pool._processes)
        assert all(process.poll() is None for process in processes)
    assert all(process.returncode == 0 for process in processes)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_the_key_is_in_no_argument_and_no_environment() -> None:
    keys = holder()
    with Pool(keys.credentials, 1) as pool:
        at = Path(f"/proc/{pool._processes[0].pid}")
        while not (at / "cmdline").read_bytes():
            time.sleep(0.01)  # it is about to begin
        told = (at / "cmdline").read_bytes() + (at / "environ").read_bytes()
    assert keys.credentials.key[64:96] not in told
    assert keys.credentials.key.hex()[64:96].encode() not in told
    assert os.fsencode(sys.executable) in told
