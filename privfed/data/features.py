"""Features of items: one float32 table (items, width) for each modality."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, is_dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from privfed.catalog import suggest
from privfed.data.encoders import Encoder, ImageEncoder, TextEncoder, encoder
from privfed.data.encoders.cache import digest, remembered
from privfed.data.encoders.images import Images
from privfed.data.interactions import DataError, Interactions
from privfed.errors import DataMissing, SettingsError

IMAGE_NAMES = ("image", "poster", "cover")  # data has one image an item, so named
MAX_WIDTH = 2**16

Table = Callable[[], Tensor]  # makes (items, width)


def encode(
    data: Interactions, specs: Sequence[str], cache: Path | None = None
) -> dict[str, Tensor]:
    """Return a finite float32 table (items, width) for each modality.

    Each spec adds modalities:

    - ``auto``: the features that came with the data, else TF-IDF of every text
      column, else nothing;
    - ``none``: nothing;
    - ``given``: the features that came with the data, as they are;
    - an encoder, ``tfidf`` or ``clip:pretrained=weights.pt``: every text column and
      image that it understands;
    - ``title=minilm``, ``poster=efficientnet``: one modality by one encoder;
    - ``title=rows.npy``: float16 or float32 numbers from a file, a row an item.

    ``modality=...`` replaces what a broader spec would give. An item without a text
    or an image has a row of zeros (``gaps`` tells how many). Rows of learned encoders
    have length 1. ``cache`` is a folder that keeps what encoders made.

    Raises SettingsError for a spec that names nothing or a modality that two specs
    give, DataError for data that cannot be encoded, DataMissing for an absent file,
    MissingExtra where an encoder's library is not installed.
    """
    broad = [_broad(data, spec, cache) for spec in specs if not _is_exact(spec)]
    exact = [_exact(data, spec, cache) for spec in specs if _is_exact(spec)]
    plan = {**_union(broad), **_union(exact)}
    return {name: _checked(table(), name, data.items) for name, table in plan.items()}


def gaps(features: dict[str, Tensor]) -> tuple[str, ...]:
    """Say, for each modality that lacks some items, how many rows are zeros."""
    counts = {name: int((rows == 0).all(1).sum()) for name, rows in features.items()}
    return tuple(
        f"{name}: {count:,} of {len(features[name]):,} items have none; "
        "their rows are zeros"
        for name, count in counts.items()
        if count
    )


def _is_exact(spec: str) -> bool:
    """``title=tfidf:width=9`` is; ``tfidf:width=9`` is not."""
    return "=" in spec.partition(":")[0]


def _union(plans: Iterable[dict[str, Table]]) -> dict[str, Table]:
    union: dict[str, Table] = {}
    for plan in plans:
        for name in sorted(plan.keys() & union.keys()):
            mend = f"keep one, or choose with {name}=ENCODER"
            raise SettingsError(f"features: two specs give {name!r}; {mend}")
        union |= plan
    return union


def _broad(data: Interactions, spec: str, cache: Path | None) -> dict[str, Table]:
    if spec == "none":
        return {}
    if spec == "auto":
        return _auto(data, cache)
    if spec == "given":
        return _given(data)
    model = encoder(spec)
    plan: dict[str, Table] = {}
    if isinstance(model, TextEncoder):
        plan |= {c: partial(_texts, data, c, spec, model, cache) for c in columns(data)}
    if isinstance(model, ImageEncoder) and data.images:
        plan["image"] = partial(_images, data, spec, model, cache)
    if not plan:
        has = "images" if data.images else "texts" if columns(data) else "no content"
        raise DataError(f"{data.name}: {spec!r} can read nothing here (it has {has})")
    return plan


def _auto(data: Interactions, cache: Path | None) -> dict[str, Table]:
    if data.features:
        return _given(data)
    return _broad(data, "tfidf", cache) if columns(data) else {}


def _given(data: Interactions) -> dict[str, Table]:
    if not data.features:
        mend = "ask for 'auto', 'none' or an encoder"
        raise DataError(f"{data.name}: came without features; {mend}")
    return {name: partial(torch.clone, rows) for name, rows in data.features.items()}


def columns(data: Interactions) -> tuple[str, ...]:
    """Text columns in which some item has a text."""
    return tuple(
        column
        for column, texts in data.texts.items()
        if any(text.strip() for text in texts)
    )


def _exact(data: Interactions, spec: str, cache: Path | None) -> dict[str, Table]:
    name, _, source = (part.strip() for part in spec.partition("="))
    if source.endswith(".npy"):
        return {name: partial(_array, Path(source).expanduser(), data.items)}
    model = encoder(source)
    if name in columns(data):
        return {name: _by_text(data, name, source, model, cache)}
    if name in IMAGE_NAMES and data.images:
        return {name: _by_image(data, name, source, model, cache)}
    known = (*columns(data), *(IMAGE_NAMES if data.images else ()))
    hint = suggest(name, known) or ", no text and no image"
    raise SettingsError(f"features: {data.name} has no {name!r}{hint}")


def _by_text(
    data: Interactions, name: str, spec: str, model: Encoder, cache: Path | None
) -> Table:
    if not isinstance(model, TextEncoder):
        raise SettingsError(f"features: {name!r} is text, which {spec!r} does not read")
    return partial(_texts, data, name, spec, model, cache)


def _by_image(
    data: Interactions, name: str, spec: str, model: Encoder, cache: Path | None
) -> Table:
    if not isinstance(model, ImageEncoder):
        raise SettingsError(f"features: {spec!r} does not read images ({name!r})")
    return partial(_images, data, spec, model, cache)


def _texts(
    data: Interactions, column: str, spec: str, model: TextEncoder, cache: Path | None
) -> Tensor:
    texts = data.texts[column]
    if len(texts) != data.items:
        raise DataError(f"{column}: {len(texts):,} texts for {data.items:,} items")
    items = [item for item, text in enumerate(texts) if text.strip()]
    present = [texts[item] for item in items]
    key = _key(spec, model, "text", (text.encode() for text in present))
    try:
        rows = remembered(cache, key, lambda: model.encode_texts(present))
    except DataError as error:
        raise DataError(f"{column}: {error}") from error
    return _spread(rows, items, data.items, spec)


def _images(
    data: Interactions, spec: str, model: ImageEncoder, cache: Path | None
) -> Tensor:
    items = sorted(data.images)
    if items[0] < 0 or items[-1] >= data.items:
        wrong = items[0] if items[0] < 0 else items[-1]
        raise DataError(f"image of item {wrong}: there are {data.items:,} items")
    key = _key(spec, model, "image", (data.images[item] for item in items))
    images = Images(data.images, items, data.item_ids)
    rows = remembered(cache, key, lambda: model.encode_images(images))
    return _spread(rows, items, data.items, spec)


def _key(spec: str, model: Encoder, kind: str, values: Iterable[bytes]) -> str:
    name = spec.partition(":")[0]
    settings: dict[str, object] = asdict(model) if is_dataclass(model) else {}
    head = json.dumps([name, model.version, settings, kind], sort_keys=True)
    return digest([head.encode(), *values])


def _spread(rows: Tensor, items: list[int], total: int, spec: str) -> Tensor:
    """Put each row at its item; the other items' rows are zeros."""
    if rows.ndim != 2 or len(rows) != len(items) or not rows.is_floating_point():
        shape = f"{tuple(rows.shape)} of {rows.dtype}"
        raise SettingsError(f"encoder {spec!r}: {len(items)} values gave {shape}")
    table = torch.zeros(total, rows.shape[1])
    table[items] = rows.float()
    return table


def _array(path: Path, items: int) -> Tensor:
    """Read (items, width) numbers; never unpickles."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataMissing(f"{path}: no such file; check the path") from error
    except (OSError, ValueError, EOFError) as error:
        mend = "write it again with numpy.save"
        raise DataError(f"{path}: no array can be read from it; {mend}") from error
    if not isinstance(array, np.ndarray) or array.dtype not in (np.float16, np.float32):
        raise DataError(f"{path}: holds no float16 or float32 array; convert it")
    if array.ndim != 2 or len(array) != items or array.shape[1] > MAX_WIDTH:
        wanted = f"({items}, width up to {MAX_WIDTH})"
        raise DataError(f"{path}: shape {array.shape}, where {wanted} is needed")
    return torch.from_numpy(np.array(array, dtype=np.float32))


def _checked(rows: Tensor, name: str, items: int) -> Tensor:
    """A finite float32 table with one row an item."""
    if rows.ndim != 2 or len(rows) != items or rows.shape[1] < 1:
        wanted = f"({items}, width)"
        raise DataError(f"{name}: shape {tuple(rows.shape)}, where {wanted} is needed")
    bad = (~torch.isfinite(rows)).any(1).nonzero().flatten()
    if len(bad):
        mend = "fill or remove those rows"
        raise DataError(f"{name}: item {int(bad[0])} has NaN or infinity; {mend}")
    return rows.float()
