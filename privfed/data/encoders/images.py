"""Decoding of images that came from outside and may mean harm."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, overload

from privfed.data.encoders.extras import library
from privfed.data.interactions import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP")  # a decoder that is not named cannot be attacked
MAX_BYTES = 32 * 2**20
MAX_PIXELS = 2**25  # 100 MB once decoded
MAX_ASPECT = 20  # an encoder scales the short side up; the long one follows


@dataclass(frozen=True)
class Images(Sequence["Image"]):
    """The images of some items, decoded one at a time as they are asked for.

    Raises DataError, naming the item, for bytes that are no JPEG, PNG or WebP, are
    cut or damaged, or would decode to more than ``MAX_PIXELS``.
    """

    encoded: Mapping[int, bytes]
    items: Sequence[int]
    item_ids: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, at: int) -> "Image": ...
    @overload
    def __getitem__(self, at: slice) -> "Images": ...
    def __getitem__(self, at: int | slice) -> "Image | Images":
        if isinstance(at, slice):
            return Images(self.encoded, self.items[at], self.item_ids)
        item = self.items[at]
        try:
            return decode(self.encoded[item])
        except DataError as error:
            raise DataError(f"image of item {self._name(item)}: {error}") from error

    def _name(self, item: int) -> str:
        return f"{self.item_ids[item]!r}" if self.item_ids else str(item)


def decode(encoded: bytes) -> "Image":
    """Decode one image to RGB; raises DataError for what is damaged or too large."""
    pillow = library("PIL.Image", "pillow", "decoding item images")
    if len(encoded) > MAX_BYTES:
        raise DataError(f"over {MAX_BYTES >> 20} MiB; shrink it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            return _rgb(pillow, encoded)
    except DataError:
        raise
    except Exception as error:  # decoders raise all kinds of errors on forged bytes
        mend = "replace or remove it"
        raise DataError(f"cannot be read ({type(error).__name__}); {mend}") from error


def _rgb(pillow: Any, encoded: bytes) -> "Image":
    with pillow.open(BytesIO(encoded), formats=FORMATS) as image:
        _check_size(*image.size)
        image.verify()
    with pillow.open(BytesIO(encoded), formats=FORMATS) as image:  # verify() spends it
        # A palette with transparency converts to RGB only by way of RGBA.
        whole = image.convert("RGBA") if "transparency" in image.info else image
        rgb: Image = whole.convert("RGB")
        return rgb


def _check_size(width: int, height: int) -> None:
    """Refuse by what the header says, before a pixel is decoded."""
    size = f"{width} x {height} pixels"
    if width * height > MAX_PIXELS:
        raise DataError(f"{size}, over {MAX_PIXELS:,}; shrink it")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise DataError(f"{size}, longer than {MAX_ASPECT} times its width; crop it")
