"""A data set in figures: size, density, long tail, what is known of items."""

from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor

from privfed.data.interactions import Interactions

SCHEMA = 1
_MILLISECONDS = 10**11  # a time stamp beyond this many seconds (year 5138) is in ms
_HEAD = 0.1  # the share of items that counts as the head of the long tail


def portrait(data: Interactions) -> dict[str, Any]:
    """Figures of a data set, as JSON can hold them."""
    counts = data.offsets.diff()
    return {
        "schema": SCHEMA,
        "name": data.name,
        "fingerprint": data.fingerprint,
        "users": data.users,
        "items": data.items,
        "interactions": len(data),
        "density": len(data) / (data.users * data.items),
        "per_user": {
            "min": int(counts.min()),
            "median": float(counts.double().quantile(0.5)),
            "max": int(counts.max()),
        },
        **popularity(data),
        "ratings": _ratings(data),
        "time": _time(data),
        "parts": _parts(data),
        "features": {name: table.shape[1] for name, table in data.features.items()},
        "texts": {name: _filled(words) for name, words in data.texts.items()},
        "images": len(data.images),
        "attributes": {name: len({*v}) for name, v in data.attributes.items()},
        "negatives": 0 if data.candidates is None else data.candidates.shape[1],
    }


def popularity(data: Interactions) -> dict[str, float]:
    """How unequal items are: Gini coefficient and the share of the top tenth."""
    counts = torch.bincount(data.item, minlength=data.items)
    ordered = counts.sort().values.double()
    head = max(1, round(data.items * _HEAD))
    return {
        "gini": gini(ordered),
        "head_share": float(ordered[-head:].sum() / ordered.sum()),
    }


def gini(ordered: Tensor) -> float:
    """Gini coefficient of ascending amounts: 0 where equal, near 1 where one has all.

    G = 2 sum_i i x_i / (n sum_i x_i) - (n + 1) / n, with i from 1.
    """
    count = len(ordered)
    rank = torch.arange(1, count + 1, dtype=torch.float64)
    weighted = float((rank * ordered).sum() / ordered.sum())
    return 2 * weighted / count - (count + 1) / count


def _ratings(data: Interactions) -> dict[str, float] | None:
    if data.rating is None or data.scale is None:
        return None
    return {
        "low": data.scale.low,
        "high": data.scale.high,
        "step": data.scale.step,
        "mean": float(data.rating.double().mean()),
    }


def _time(data: Interactions) -> dict[str, Any] | None:
    if data.time is None:
        return None
    dated = data.time[data.time >= 0]
    first, last = int(dated.min()), int(dated.max())
    return {
        "first": first,
        "last": last,
        "from": day(first),
        "to": day(last),
        "undated": len(data) - len(dated),
    }


def day(stamp: int) -> str | None:
    """The day of a stamp in (milli)seconds since 1970; None for another clock."""
    seconds = stamp / 1000 if stamp > _MILLISECONDS else stamp
    if seconds < 365 * 86400:
        return None
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _parts(data: Interactions) -> dict[str, int] | None:
    if data.part is None:
        return None
    counts = torch.bincount(data.part.long(), minlength=3).tolist()
    return dict(zip(("train", "validation", "test"), counts, strict=True))


def _filled(words: tuple[str, ...]) -> int:
    """Items that have any words."""
    return sum(1 for text in words if text)
