"""From a name or a path to a world ready to train on."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from privfed.data import splits
from privfed.data.datasets import DATASETS
from privfed.data.download import cache_folder
from privfed.data.interactions import Interactions
from privfed.data.remarks import remarks
from privfed.data.world import Shape, Source, World
from privfed.errors import DataMissing

Split = Literal["auto", "leave-one-out", "warm", "ratio", "given"]
DEMO = "demo"


@dataclass(frozen=True)
class DataSettings:
    """Which data, how it is read, split and described by features.

    ``data`` is ``demo``, a name of the catalog (``privfed data list``), a folder
    of PRIVFED_DATA or a path. ``format`` is a reader's name, with options after a
    colon. ``split`` ``auto`` takes the source's own split, else leave one out where
    time is known, else a ratio; ``warm`` is leave one out of items that somebody
    else trains on. ``seed`` draws the demo and the ratio split.
    ``explicit`` makes ratings the labels.
    """

    data: str = DEMO
    format: str = "auto"
    split: Split = "auto"
    features: tuple[str, ...] = ("auto",)
    seed: int = 0
    explicit: bool = False

    def __post_init__(self) -> None:
        known = get_args(Split)
        if self.split not in known:
            raise ValueError(f"split must be one of {known}, got {self.split!r}")
        if not self.data:
            raise ValueError("data must be a name or a path, got ''")


def load(settings: DataSettings, cache: Path | None = None) -> Source:
    """Read, split and encode. Raises DataMissing or DataError with the mend."""
    data = interactions(settings, cache)
    world, words = _split(data, settings)
    features = _features(data, settings, cache)
    world = with_features(world, features)
    return Source(world, words, remarks(data, world, features))


def interactions(settings: DataSettings, cache: Path | None = None) -> Interactions:
    """The data before it is split."""
    if settings.data == DEMO:
        from privfed.data.worlds import demo

        return demo(settings.seed)
    from privfed.data.readers import read

    data = read(locate(settings.data, cache), settings.format)
    return replace(data, name=settings.data) if settings.data in DATASETS else data


def locate(data: str, cache: Path | None = None) -> Path:
    """The file or folder of a name or a path.

    A name of the catalog is looked for in the cache, then in PRIVFED_DATA; anything
    else is a path, or else a folder of PRIVFED_DATA. Raises DataMissing.
    """
    shelf = os.environ.get("PRIVFED_DATA")
    shelved = Path(shelf) / data if shelf else None
    first = cache_folder(cache) / data if data in DATASETS else Path(data).expanduser()
    for path in (first, shelved):
        if path is not None and path.exists():
            return path
    if data in DATASETS:
        raise DataMissing(f"{data} is not here; run: privfed data get {data}")
    close = get_close_matches(data, (DEMO, *DATASETS), n=1)
    hint = f"did you mean '{close[0]}'?" if close else "check the path"
    raise DataMissing(f"data: no file, folder or known name '{data}'; {hint}")


def _split(data: Interactions, settings: DataSettings) -> tuple[World, str]:
    chosen = settings.split if settings.split != "auto" else _natural(data)
    if chosen == "given":
        return splits.given(data, settings.explicit), "given by the source"
    if chosen == "ratio":
        world = splits.by_ratio(data, settings.seed, explicit=settings.explicit)
        return world, "80/10/10 by user"
    words = "time" if data.time is not None else "file order"
    if chosen == "warm":
        world = splits.warm(data, settings.explicit)
        return world, f"leave one out by {words}, warm items"
    return splits.leave_one_out(data, settings.explicit), f"leave one out by {words}"


def _natural(data: Interactions) -> Split:
    if data.part is not None:
        return "given"
    return "leave-one-out" if data.time is not None else "ratio"


def _features(
    data: Interactions, settings: DataSettings, cache: Path | None
) -> Mapping[str, Tensor]:
    if not settings.features:
        return {}
    from privfed.data.features import encode

    return encode(data, settings.features, cache_folder(cache) / "features")


def with_features(world: World, features: Mapping[str, Tensor]) -> World:
    """The world with these item features instead of its own."""
    features = {name: _aligned(value) for name, value in features.items()}
    digest = hashlib.sha256(world.fingerprint.encode())
    for modality in sorted(features):
        digest.update(modality.encode())
        digest.update(features[modality].contiguous().numpy().tobytes())
    widths = splits.widths(features)
    return replace(
        world,
        shape=Shape(world.shape.clients, world.shape.items, widths),
        features=features,
        fingerprint=digest.hexdigest()[:16],
    )


def _aligned(features: Tensor) -> Tensor:
    """Features with zero columns added, up to a multiple of 4.

    Matrix libraries treat rows that start off a boundary differently, and then the
    last bits of a result would depend on how clients share a shard.
    """
    return torch.nn.functional.pad(features, (0, -features.shape[1] % 4))
