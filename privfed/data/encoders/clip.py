"""CLIP, texts and images in one space of width 512.

Radford et al., ICML 2021. ViT-B/32 with OpenAI's weights is what FedMR reads.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from privfed.data.encoders import ImageEncoder, TextEncoder
from privfed.data.encoders.batches import batches
from privfed.data.encoders.extras import library, version_of
from privfed.data.interactions import DataError
from privfed.errors import DataMissing, SettingsError

if TYPE_CHECKING:
    from PIL.Image import Image

PACKAGE = "open_clip_torch"
PURPOSE = "the clip encoder"
# An extra of its own: it brings torchvision, and one that does not fit the torch at
# hand also ends sentence-transformers.
EXTRA = "clip"
BATCH = 64


@dataclass(frozen=True)
class Clip(TextEncoder, ImageEncoder):
    """Embeddings of length 1, comparable between texts and images.

    ``pretrained`` is a tag of open_clip (``openai``, ``laion2b_s34b_b79k``), whose
    weights are downloaded once, or the path of a checkpoint (safetensors, or tensors
    saved by torch; nothing else is unpickled). A checkpoint of OpenAI's weights needs
    ``model=ViT-B-32-quickgelu``; the tag needs nothing. Words beyond the first 77
    tokens of a text are not read.
    """

    model: str = "ViT-B-32"
    pretrained: str = "openai"

    @property
    def version(self) -> str:
        """The library's version and, for a file, its content."""
        path = Path(self.pretrained).expanduser()
        weights = f", {_sha256(path)}" if path.is_file() else ""
        return version_of(PACKAGE, PURPOSE, EXTRA) + weights

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Return (texts, width), 512 wide for ViT-B/32."""
        open_clip = _library()
        model, _ = self._load(open_clip)
        tokens = open_clip.get_tokenizer(self.model)
        rows = [
            _text_rows(model, tokens(list(batch)))
            for batch in batches(texts, BATCH, "clip: texts")
        ]
        return torch.cat(rows)

    def encode_images(self, images: "Sequence[Image]") -> Tensor:
        """Return (images, width), 512 wide for ViT-B/32."""
        model, prepare = self._load(_library())
        rows = [
            _image_rows(model, torch.stack([prepare(image) for image in batch]))
            for batch in batches(images, BATCH, "clip: images")
        ]
        return torch.cat(rows)

    def _load(self, open_clip: Any) -> tuple[Any, Any]:
        weights = self._weights(open_clip)
        # open_clip 3 loads OpenAI's weights into a network with another activation
        # than they were trained with, and only warns.
        tag = open_clip.get_pretrained_cfg(self.model, self.pretrained) or {}
        try:
            model, _, prepare = open_clip.create_model_and_transforms(
                self.model,
                pretrained=weights,
                force_quick_gelu=bool(tag.get("quick_gelu")),
            )
        except Exception as error:  # of all kinds, for forged and for unfit files
            raise self._unreadable(error) from error
        return model.eval(), prepare

    def _weights(self, open_clip: Any) -> str:
        if self.model not in open_clip.list_models():
            raise SettingsError(f"clip: open_clip has no model {self.model!r}")
        tags = open_clip.list_pretrained_tags_by_model(self.model)
        if self.pretrained in tags:
            return self.pretrained
        path = Path(self.pretrained).expanduser()
        if not path.is_file():
            known = ", ".join(tags) or "none"
            mend = f"give the path of a checkpoint, or a tag of {self.model}: {known}"
            raise DataMissing(f"clip: no weights {self.pretrained!r}; {mend}")
        return str(path)

    def _unreadable(self, error: Exception) -> DataError | DataMissing:
        reason = str(error).partition("\n")[0]
        what = f"clip: cannot load {self.pretrained!r} as weights of {self.model}"
        if Path(self.pretrained).expanduser().is_file():
            mend = "give safetensors or tensors saved by torch that fit the model"
            return DataError(f"{what} ({reason}); {mend}")
        mend = "connect to the model hub once, or give a file: clip:pretrained=FILE"
        return DataMissing(f"{what} ({reason}); {mend}")


def _library() -> Any:
    return library("open_clip", PACKAGE, PURPOSE, EXTRA)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@torch.inference_mode()
def _text_rows(model: Any, tokens: Tensor) -> Tensor:
    rows: Tensor = model.encode_text(tokens, normalize=True)
    return rows


@torch.inference_mode()
def _image_rows(model: Any, pixels: Tensor) -> Tensor:
    rows: Tensor = model.encode_image(pixels, normalize=True)
    return rows
