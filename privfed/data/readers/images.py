"""Pictures of items beside a data set: a folder or a zip of ``<item id>.jpg``."""

import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from privfed.data.interactions import DataError

MAX_IMAGE = 8 * 1024**2  # bytes of one encoded image
MAX_IMAGES = 200_000
MAX_TOTAL = 1024**3
_NAME = re.compile(r"(?:^|/)([^/]+)\.(?:jpe?g|png|webp)$", re.IGNORECASE)


def images_beside(folder: Path, name: str = "posters") -> Mapping[str, bytes]:
    """Encoded images by item id, from ``<name>/`` or else ``<name>.zip``.

    Nothing is decoded and no member is written anywhere. Raises DataError for a
    damaged zip, for an image over 8 MiB and for more than 1 GiB in all.
    """
    loose, packed = folder / name, folder / f"{name}.zip"
    if loose.is_dir():
        return _bounded(loose, _loose(loose))
    if not packed.is_file():
        return {}
    try:
        with zipfile.ZipFile(packed) as archive:
            return _bounded(packed, _packed(packed, archive))
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise DataError(f"{packed}: damaged zip ({error}); fetch it again") from error


def _loose(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.iterdir()):
        match = _NAME.search(path.name)
        if match:
            _check_size(path, path.name, path.stat().st_size)
            yield match[1], path.read_bytes()


def _packed(path: Path, archive: zipfile.ZipFile) -> Iterator[tuple[str, bytes]]:
    for member in archive.infolist():
        match = _NAME.search(member.filename)
        if match:
            _check_size(path, member.filename, member.file_size)
            with archive.open(member) as stream:
                yield match[1], stream.read(MAX_IMAGE + 1)


def _check_size(path: Path, name: str, size: int) -> None:
    if size > MAX_IMAGE:
        raise DataError(
            f"{path}: {name} has {size} bytes, over {MAX_IMAGE}; scale it down"
        )


def _bounded(path: Path, found: Iterator[tuple[str, bytes]]) -> dict[str, bytes]:
    images: dict[str, bytes] = {}
    total = 0
    for item, image in found:
        total += len(image)
        if total > MAX_TOTAL or len(images) >= MAX_IMAGES:
            raise DataError(f"{path}: over 1 GiB or 200,000 images; scale them down")
        images[item] = image
    return images
