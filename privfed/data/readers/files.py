"""Bounded reading of untrusted files."""

import gzip
import zlib
from pathlib import Path

from privfed.data.interactions import DataError

MAX_BYTES = 2 * 1024**3  # of one file, decompressed


def content(path: Path) -> bytes:
    """What a file holds, decompressed where its name ends in ``.gz``.

    Raises DataError where the file is missing, empty, cut off or over 2 GiB.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path")
    data = _gunzip(path) if path.suffix == ".gz" else _plain(path)
    if not data.strip():
        raise DataError(f"{path}, line 1: the file is empty; fetch it again")
    return data


def _plain(path: Path) -> bytes:
    if path.stat().st_size > MAX_BYTES:
        raise _too_large(path)
    return path.read_bytes()


def _gunzip(path: Path) -> bytes:
    try:
        with gzip.open(path) as stream:
            data = stream.read(MAX_BYTES + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{path}: cut off or not gzip ({error}); fetch it again"
        ) from error
    if len(data) > MAX_BYTES:
        raise _too_large(path)
    return data


def _too_large(path: Path) -> DataError:
    limit = MAX_BYTES // 1024**2
    return DataError(f"{path}: larger than {limit} MiB; split it or take a sample")


def text(path: Path, fallback: str | None = None) -> str:
    """A file's text in UTF-8, or else in ``fallback`` where one is named."""
    data = content(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if fallback:
            return data.decode(fallback)
        raise not_utf8(path, data, error) from error


def not_utf8(path: Path, data: bytes, error: UnicodeDecodeError) -> DataError:
    """The error that names the line of the first byte that is not UTF-8."""
    line = data.count(b"\n", 0, error.start) + 1
    return DataError(f"{path}, line {line}: not UTF-8; save the file as UTF-8")


def first_line(path: Path) -> str:
    """A text file's first line, at most 64 KiB of it."""
    if path.suffix == ".gz":
        return content(path).split(b"\n", 1)[0].decode("utf-8", "replace")
    with path.open("rb") as stream:
        return stream.readline(65536).decode("utf-8", "replace").rstrip("\r\n")
