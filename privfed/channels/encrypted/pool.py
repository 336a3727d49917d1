"""Processes that encrypt side by side, on the devices' side of the trust boundary.

They are started as programs of their own rather than forked: torch's threads do not
survive a fork, and a script without a main guard stays usable. Keys go through the
pipe, so they are in no argument list and no environment.
"""

import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import IO

from privfed.channels.encrypted.device import Job
from privfed.channels.encrypted.keys import Credentials
from privfed.channels.encrypted.worker import read, reply, write
from privfed.errors import PrivfedError

_PROGRAM = "privfed.channels.encrypted.worker"


class Pool:
    """Encrypts jobs in ``workers`` processes; which one does which changes nothing."""

    def __init__(self, credentials: Credentials, workers: int) -> None:
        self._processes = [_started() for _ in range(workers)]
        self._free: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        for process in self._processes:
            _told(process, credentials.pack())
            self._free.put(process)
        self._threads = ThreadPoolExecutor(workers, "privfed-he")

    def seal(self, jobs: Iterable[Job]) -> Iterator[tuple[bytes, float]]:
        """Envelopes and the processor seconds they took, in the order of the jobs."""
        waiting: deque[Future[tuple[bytes, float]]] = deque()
        for job in jobs:
            waiting.append(self._threads.submit(self._one, job))
            if len(waiting) > 2 * len(self._processes):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _one(self, job: Job) -> tuple[bytes, float]:
        process = self._free.get()
        try:
            _told(process, job.pack())
            data = read(_pipe(process.stdout))
        finally:
            self._free.put(process)
        if data is None:
            raise _ended(process)
        done, seconds, result = reply(data)
        if not done:
            raise PrivfedError(f"an encryption process failed: {result.decode()}")
        return result, seconds

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        for process in self._processes:
            with suppress(BrokenPipeError):  # what was not written to one that ended
                _pipe(process.stdin).close()
        for process in self._processes:
            process.wait()
            _pipe(process.stdout).close()


def _started() -> subprocess.Popen[bytes]:
    path = os.pathsep.join(part or os.getcwd() for part in sys.path)
    return subprocess.Popen(
        [sys.executable, "-m", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )


def _told(process: subprocess.Popen[bytes], data: bytes) -> None:
    try:
        write(_pipe(process.stdin), data)
    except BrokenPipeError:
        raise _ended(process) from None


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # both were asked for
    return pipe


def _ended(process: subprocess.Popen[bytes]) -> PrivfedError:
    code = process.wait()
    return PrivfedError(
        f"an encryption process ended with code {code}; if the machine ran out of "
        "memory, give he:workers=1"
    )
