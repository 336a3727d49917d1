"""A process that encrypts: frames in at one pipe, frames out at the other.

It imports neither torch nor what started it, holds what a device holds, and ends when
its input ends.
"""

import signal
import struct
import sys
import time
from typing import IO

_LENGTH = struct.Struct("<Q")
_REPLY = struct.Struct("<?d")  # whether it worked, processor seconds


def write(pipe: IO[bytes], data: bytes) -> None:
    """Send one frame."""
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def read(pipe: IO[bytes]) -> bytes | None:
    """Receive one frame; None where the other side is gone."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    data = pipe.read(length)
    return data if len(data) == length else None


def reply(data: bytes) -> tuple[bool, float, bytes]:
    """Whether a job was done, its processor seconds, and its result or the reason."""
    done, seconds = _REPLY.unpack_from(data)
    return done, seconds, data[_REPLY.size :]


def main() -> None:
    """Encrypt until there is nothing more."""
    from privfed.channels.encrypted.device import Device, Job
    from privfed.channels.encrypted.keys import Credentials

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it decides when it ends
    first = read(sys.stdin.buffer)
    if first is None:
        return
    device = Device(Credentials.unpack(first))
    while (data := read(sys.stdin.buffer)) is not None:
        start = time.process_time()
        try:
            done, result = True, device.seal(Job.unpack(data))
        except Exception as error:
            done, result = False, str(error).encode()
        seconds = time.process_time() - start
        write(sys.stdout.buffer, _REPLY.pack(done, seconds) + result)


if __name__ == "__main__":
    main()
