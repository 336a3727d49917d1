"""What a run computes on. Nothing here may change a result."""

import ctypes
import mmap
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from privfed.data.world import Shape
from privfed.devices.batches import coarse
from privfed.errors import SettingsError
from privfed.interfaces import Method

_ROWS = 8192  # padded positives a shard aims at: enough to amortize, small for cache
_FLAT = 2**16  # the same where nobody is padded, and a shard's cost is in its steps
_TRIM, _MMAP = -1, -3  # mallopt's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD


def parse_bytes(text: str) -> int:
    """Read "4GiB", "512 MiB" or "2e9" as bytes; raise SettingsError otherwise."""
    match = re.fullmatch(
        r"\s*(\d+(?:\.\d+)?(?:e\d+)?)\s*([kmgt]?i?b?)\s*", text.lower()
    )
    if not match:
        raise SettingsError(f"memory: {text!r} is no size; write 4GiB or 500MB")
    unit = match[2].removesuffix("b")
    factor = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
    binary = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
    return int(float(match[1]) * (factor | binary)[unit])


def size_of(count: int) -> str:
    """Bytes as ``parse_bytes`` reads them, never less than they are."""
    unit, name = (2**30, "GiB") if count >= 2**30 else (2**20, "MiB")
    return f"{ceil(10 * count / unit) / 10:g}{name}"


@dataclass(frozen=True)
class Machine:
    """Device, memory budget in bytes, worker threads, clients in a shard at most."""

    device: str = "cpu"
    memory: int = 2 * 2**30
    workers: int = 2
    shard: int = 512

    def __post_init__(self) -> None:
        for name in ("memory", "workers", "shard"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")

    def shards(
        self, counts: Tensor, shape: Shape, method: Method, dense: bool
    ) -> Sequence[Tensor]:
        """Positions of each shard's clients: one padded size to a shard.

        A method that pads nobody has shards of any sizes. ``dense`` says that whole
        tables leave the devices, which dominates memory. Raises SettingsError where
        one client alone is over the budget.
        """
        flat = method.flat and not dense
        if flat and self._takes(counts, shape, method):
            return [torch.arange(len(counts))]
        sizes, kind = torch.unique(
            coarse(counts) if flat else method.room(counts), return_inverse=True
        )
        rooms = [
            self._room(method.footprint(shape, shape.items if dense else size))
            for size in sizes.tolist()
        ]
        if flat:
            return self._runs(counts / _FLAT, torch.tensor(rooms)[kind])
        shards: list[Tensor] = []
        for k, (size, room) in enumerate(zip(sizes.tolist(), rooms, strict=True)):
            at_once = max(1, min(room, self.shard, _ROWS // size))
            shards += (kind == k).nonzero()[:, 0].split(at_once)
        return shards

    def _takes(self, counts: Tensor, shape: Shape, method: Method) -> bool:
        """Whether one shard takes clients that nobody pads, as fast as that is told."""
        few = 0 < len(counts) <= self.shard and int(counts.sum()) <= _FLAT
        need = len(counts) * method.footprint(shape, int(counts.max())) if few else 0
        return few and need <= self._share

    @property
    def _share(self) -> int:
        """Bytes that one worker's shard may take."""
        return self.memory // (4 * self.workers)

    def _room(self, need: int) -> int:
        """How many clients that need so many bytes may train at once."""
        room = self._share // need
        if room < 1:
            raise SettingsError(
                f"one client needs {size_of(need)} to train; "
                f"give --memory {size_of(4 * self.workers * need)} or more"
            )
        return room

    def _runs(self, load: Tensor, room: Tensor) -> Sequence[Tensor]:
        """Runs of clients, each of a load of 1 at most, or one client.

        A client's load is no less than 1 / ``room``.
        """
        each = load.double().maximum(1 / room).clamp(1 / self.shard, 1)
        ends, shards, begin = each.cumsum(0), list[Tensor](), 0
        while begin < len(each):
            full = ends[begin] - each[begin] + 1 + 1e-9
            end = int(torch.searchsorted(ends, full, right=True))
            shards.append(torch.arange(begin, end))
            begin = end
        return shards

    def home(self, private: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give private state memory of its own, or a file where it is too large.

        Raises SettingsError where neither has room.
        """
        return {name: self._house(name, value) for name, value in private.items()}

    def _house(self, name: str, value: Tensor) -> Tensor:
        size = value.numel() * value.element_size()
        if size <= self.memory // 2:
            return value.clone(memory_format=torch.contiguous_format)
        if self.device != "cpu" or bool(value[0].any()):
            raise SettingsError(
                f"private state {name} needs {size_of(size)}; give --memory "
                f"{size_of(2 * size)}, or choose a smaller width"
            )
        return _in_file(value, size)


def _in_file(value: Tensor, bytes_needed: int) -> Tensor:
    """A copy of a zero tensor in an unnamed file: only rows written take memory."""
    with tempfile.NamedTemporaryFile(prefix="privfed-") as file:
        free = shutil.disk_usage(file.name).free
        if bytes_needed > free:
            raise SettingsError(
                f"private state needs {size_of(bytes_needed)} and only "
                f"{size_of(free)} are free for temporary files; set TMPDIR to "
                "a larger disk, or choose a smaller width"
            )
        os.truncate(file.name, bytes_needed)
        pages = mmap.mmap(file.fileno(), bytes_needed)
    table = torch.frombuffer(pages, dtype=value.dtype).view(value.shape)
    _pages[table] = pages
    return table


_pages = WeakTensorKeyDictionary()  # of each table in a file


def let_go(private: Mapping[str, Tensor]) -> None:
    """Hand the memory of tables in files back; their content stays in the file.

    The system would do so when memory runs short, but a process that is watched or
    limited by its resident size may not live to see that.
    """
    for value in private.values():
        if value in _pages and hasattr(mmap, "MADV_DONTNEED"):
            _pages[value].madvise(mmap.MADV_DONTNEED)


def keep_freed_memory() -> None:
    """Have the C library reuse freed blocks instead of handing each back.

    A round takes and frees the same tens of megabytes over and over; clearing fresh
    pages for them took half of its time. Blocks of 32 MiB and more are still handed
    back. Where the library is not glibc nothing happens.
    """
    if sys.platform != "linux":
        return
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust is not None:
        adjust(_MMAP, 2**25)
        adjust(_TRIM, 2**28)


def device_of(name: str) -> torch.device:
    """A torch device that is really there; raise SettingsError otherwise."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(f"device {name!r}: {str(error).splitlines()[0]}") from None
    return device
