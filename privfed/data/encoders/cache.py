"""Encoded rows kept on disk, found by the content that they were made from."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from privfed.errors import SettingsError


def digest(parts: Iterable[bytes]) -> str:
    """SHA-256 of a sequence of byte strings; no two sequences look alike."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "big"))
        whole.update(part)
    return whole.hexdigest()


def remembered(folder: Path | None, key: str, make: Callable[[], Tensor]) -> Tensor:
    """Return the rows kept under ``key``; make and keep them where there are none.

    A cut or altered file is made anew. Raises SettingsError where the folder cannot
    be written.
    """
    if folder is None:
        return make()
    path = folder / f"{key}.safetensors"
    kept = _read(path)
    if kept is not None:
        return kept
    rows = make().contiguous()
    try:
        _write(path, rows)
    except OSError as error:
        mend = "name another folder"
        raise SettingsError(f"cache {folder}: {error.strerror}; {mend}") from error
    return rows


def _read(path: Path) -> Tensor | None:
    try:
        with safe_open(path, framework="pt") as file:
            rows: Tensor = file.get_tensor("rows")
            sum_then = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    return rows if sum_then == _checksum(rows) else None


def _write(path: Path, rows: Tensor) -> None:
    """Write beside the place and rename, so that no reader sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=path.parent, suffix=".part", delete=False
    ) as file:
        try:
            file.write(save({"rows": rows}, {"sha256": _checksum(rows)}))
            file.close()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _checksum(rows: Tensor) -> str:
    shape = str((tuple(rows.shape), rows.dtype)).encode()
    return digest([shape, np.ascontiguousarray(rows.numpy()).tobytes()])
