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
from privfed.data.interactions import DataError, Interactions
from privfed.data.remarks import remarks
from privfed.data.world import Source, Task, World
from privfed.errors import DataMissing

Split = Literal["auto", "leave-one-out", "warm", "ratio", "given", "clients"]
DEMO = "demo"
USAGE = "usage"


@dataclass(frozen=True)
class DataSettings:
    """Which data, how it is read, split and described by features.

    ``data`` is ``demo``, ``usage`` (a generated log of choices), a name of the catalog
    (``privfed data list``), a folder of PRIVFED_DATA or a path. ``format`` is a
    reader's name, with options after a colon. ``split`` ``auto`` takes the source's own
    split, else what suits the method's task: leave one out by time, or a ratio for
    ratings and where nothing is dated, or ``clients`` for choices, where others train
    than test; ``warm`` is leave one out of items that somebody else trains on. A client
    that tests adapts to the ``support`` share of its records before it is asked for the
    last ``query`` share.
    ``seed`` draws generated data and the random splits.
    """

    data: str = DEMO
    format: str = "auto"
    split: Split = "auto"
    features: tuple[str, ...] = ("auto",)
    seed: int = 0
    support: float = 0.8
    query: float = 0.2

    def __post_init__(self) -> None:
        known = get_args(Split)
        if self.split not in known:
            raise ValueError(f"split must be one of {known}, got {self.split!r}")
        splits.check_shares(self.support, self.query)
        if not self.data:
            raise ValueError("data must be a name or a path, got ''")


def load(
    settings: DataSettings, task: Task = "ranking", cache: Path | None = None
) -> Source:
    """Read, split for a task and encode.

    Raises DataMissing or DataError with the mend.
    """
    data, told = _for_task(interactions(settings, cache), settings, task)
    world, words = _split(data, settings, task)
    features = _features(data, settings, cache)
    world = with_features(world, features)
    return Source(world, words, told + remarks(data, world, features))


def interactions(settings: DataSettings, cache: Path | None = None) -> Interactions:
    """The data before it is split."""
    if settings.data == DEMO:
        from privfed.data.worlds import demo

        return demo(settings.seed)
    if settings.data == USAGE:
        from privfed.data.usage import usage

        return usage(settings.seed)
    from privfed.data.readers import read

    data = read(locate(settings.data, cache), settings.format)
    return replace(data, name=settings.data) if settings.data in DATASETS else data


def _for_task(
    data: Interactions, settings: DataSettings, task: Task
) -> tuple[Interactions, tuple[str, ...]]:
    """The data as a task needs it, and what a reader should know of the change.

    The demo has nothing that clients come back to: of choices, the generated log of
    usage is the demo.
    """
    if task != "choice":
        return data, ()
    from privfed.data.choices import choice_records
    from privfed.data.usage import usage

    if settings.data == DEMO:
        return replace(usage(settings.seed), name=DEMO), ()
    return choice_records(data)


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
    close = get_close_matches(data, (DEMO, USAGE, *DATASETS), n=1)
    hint = f"did you mean '{close[0]}'?" if close else "check the path"
    raise DataMissing(f"data: no file, folder or known name '{data}'; {hint}")


def _split(data: Interactions, settings: DataSettings, task: Task) -> tuple[World, str]:
    chosen = settings.split if settings.split != "auto" else _natural(data, task)
    if (chosen == "clients") != (task == "choice"):
        raise DataError(
            f"split {chosen}: fits no {task} task; --split clients is for methods that "
            "predict choices (fedmeta), and they need it"
        )
    if chosen == "clients":
        world = splits.by_clients(data, settings.seed, settings.support, settings.query)
        return world, "80/10/10 of clients"
    if chosen == "given":
        return splits.given(data, task), "given by the source"
    if chosen == "ratio":
        return splits.by_ratio(data, settings.seed, task=task), "80/10/10 by user"
    words = "time" if data.time is not None else "file order"
    if chosen == "warm":
        return splits.warm(data, task), f"leave one out by {words}, warm items"
    return splits.leave_one_out(data, task), f"leave one out by {words}"


def _natural(data: Interactions, task: Task) -> Split:
    if task == "choice":
        return "clients"
    to_rank = data.candidates is not None  # a source's split that holds one item out
    if data.part is not None and (task == "ranking" or not to_rank):
        return "given"
    return "leave-one-out" if data.time is not None and task == "ranking" else "ratio"


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
    return replace(
        world,
        shape=replace(world.shape, widths=splits.widths(features)),
        features=features,
        fingerprint=digest.hexdigest()[:16],
    )


def _aligned(features: Tensor) -> Tensor:
    """Features with zero columns added, up to a multiple of 4.

    Matrix libraries treat rows that start off a boundary differently, and then the
    last bits of a result would depend on how clients share a shard.
    """
    return torch.nn.functional.pad(features, (0, -features.shape[1] % 4))
