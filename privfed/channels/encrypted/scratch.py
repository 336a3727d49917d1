"""A file in memory: SEAL, as TenSEAL wraps it, saves to paths and loads from them."""

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any


class Scratch:
    """One private file that objects pass through on their way to bytes and back.

    Keys pass through it as well, so it is in memory and has no name where the system
    allows that, and in a folder of its own otherwise.
    """

    def __init__(self) -> None:
        if hasattr(os, "memfd_create"):
            self._file = os.memfd_create("privfed")
            self._path = f"/proc/self/fd/{self._file}"
        else:
            folder = tempfile.mkdtemp(prefix="privfed-")
            self._path = str(Path(folder) / "scratch")
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        weakref.finalize(self, os.close, self._file)

    def save(self, thing: Any) -> bytes:
        """What SEAL writes of an object."""
        thing.save(self._path)
        data = os.pread(self._file, os.fstat(self._file).st_size, 0)
        os.ftruncate(self._file, 0)
        return data

    def load(self, thing: Any, context: Any, data: bytes) -> None:
        """Fill an object; raises ValueError where the bytes are none of its kind."""
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, data, 0)
        try:
            thing.load(context, self._path)
        except (RuntimeError, ValueError) as error:
            raise ValueError(str(error)) from None
        finally:
            os.ftruncate(self._file, 0)
