"""Figures and their names as people read them."""

from decimal import ROUND_CEILING, Context

_NAMES = {
    "hr": "HR",
    "er": "ER",
    "ndcg": "NDCG",
    "rmse": "RMSE",
    "mae": "MAE",
    "mse": "MSE",
    "f1": "F1",
    "auc": "AUC",
    "tpr": "TPR",
}
_COSTS = {
    "bytes_up": "upload/client/round",
    "bytes_down": "download/client/round",
    "client_seconds": "time/client/round",
    "server_seconds": "server time/round",
    "key_holder_seconds": "key holder time/round",
    "dropped": "dropped clients/round",
}


def metric(key: str) -> str:
    """``utility.hr@10`` as "HR@10"."""
    name = key.rpartition(".")[2]
    if name in _COSTS:
        return _COSTS[name]
    stem, at, cutoff = name.partition("@")
    words = [_NAMES.get(word, word) for word in stem.split("_")]
    return " ".join(words) + at + cutoff.replace("_", " ")


def number(key: str, value: float) -> str:
    """A figure's value in the unit that its name asks for."""
    name = key.rpartition(".")[2]
    if name.startswith("bytes"):
        return size(value)
    if name.endswith("seconds"):
        return duration(value)
    if key.startswith("cost."):  # a count or a ratio
        return f"{value:.4g}"
    return f"{value:.4f}"


def upward(value: float) -> str:
    """Three digits, rounded up: an epsilon may never be told too small."""
    three = Context(prec=3, rounding=ROUND_CEILING)
    return f"{float(three.create_decimal_from_float(value)):g}"


def size(count: float) -> str:
    """Bytes, in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def duration(seconds: float) -> str:
    """Seconds, in the unit that leaves a readable number."""
    if 0 < abs(seconds) < 1e-3:
        return f"{seconds * 1e6:.3g} us"
    if 0 < abs(seconds) < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s" if abs(seconds) < 1000 else f"{seconds / 60:.0f} min"
