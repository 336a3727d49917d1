"""Encoders: what turns the text or the image of an item into a row of numbers.

The catalog finds them by name; other packages add theirs by the entry point group
``privfed.encoders``.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from privfed.catalog import find
from privfed.errors import SettingsError
from privfed.fields import build

if TYPE_CHECKING:  # torch and Pillow are slow to import, and names need neither
    from PIL.Image import Image
    from torch import Tensor


class Encoder(ABC):
    """What every encoder tells of itself.

    Settings are the fields of a frozen dataclass. Rows are a function of the
    settings, of ``version`` and of the values alone: a cache relies on that.
    """

    @property
    @abstractmethod
    def version(self) -> str:
        """Changes whenever equal values would get other rows; loads no model."""


class TextEncoder(Encoder):
    """An encoder of texts."""

    @abstractmethod
    def encode_texts(self, texts: Sequence[str]) -> "Tensor":
        """One finite row for each text, none of which is blank: (texts, width)."""


class ImageEncoder(Encoder):
    """An encoder of images."""

    @abstractmethod
    def encode_images(self, images: "Sequence[Image]") -> "Tensor":
        """One finite row for each RGB image, (images, width).

        The sequence decodes an image each time that it is asked for one.
        """


def encoder(spec: str) -> Encoder:
    """The encoder that ``name`` or ``name:setting=value,setting=value`` means.

    Raises SettingsError for an unknown name or setting, or an impossible value.
    """
    name, _, settings = spec.partition(":")
    cls = find("encoder", name)
    if not issubclass(cls, (TextEncoder, ImageEncoder)):
        mend = "derive it from TextEncoder or ImageEncoder"
        raise SettingsError(f"encoder {name}: {cls.__name__} is none; {mend}")
    parts = [part for part in settings.split(",") if part.strip()]
    return build(cls, dict(_pair(name, part) for part in parts), f"encoder {name}")


def _pair(name: str, part: str) -> tuple[str, str]:
    key, equals, value = part.partition("=")
    if not equals:
        raise SettingsError(f"encoder {name}: write {part!r} as setting=value")
    return key.strip(), value.strip()
