"""Taking named members out of a zip: bounded, and nothing else written."""

import shutil
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from privfed.errors import DataMissing

MAX_MEMBER = 4 * 1024**3  # bytes unpacked


def take(archive: Path, members: Sequence[str], folder: Path) -> None:
    """Write each member, by its bare name, into the folder.

    Raises DataMissing where the archive is damaged, lacks a member or holds one
    over 4 GiB.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            for member in members:
                _take(packed, member, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise DataMissing(f"{archive.name}: damaged archive: {error}") from error


def _take(packed: zipfile.ZipFile, member: str, folder: Path) -> None:
    if packed.getinfo(member).file_size > MAX_MEMBER:
        raise DataMissing(f"{member}: over 4 GiB unpacked")
    target = folder / PurePosixPath(member).name
    with packed.open(member) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file)
