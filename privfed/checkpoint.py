"""Save everything that a run needs to go on, and load it again.

One safetensors file: tensors under "/"-joined names, the rest as JSON in its
header. It is written beside its place and then renamed, so a kill leaves the old
one whole.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from privfed.errors import DataMissing

Tree = Mapping[str, "Tensor | Tree"]
_HEADER = "privfed"


def save(path: Path, tensors: Tree, facts: Mapping[str, Any]) -> None:
    """Write a checkpoint, atomically."""
    flat = _apart(_flatten(tensors))
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(flat, beside, metadata={_HEADER: json.dumps(facts)})
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def load(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read (tensors as nested dicts, facts); clear away what a kill left half done.

    Raises DataMissing where the file is no checkpoint.
    """
    for half in path.parent.glob(f".{path.name}.*"):
        half.unlink(missing_ok=True)
    tree: dict[str, Any] = {}
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[_HEADER])
            for name in file.keys():  # noqa: SIM118 - not a mapping
                *folders, leaf = name.split("/")
                place = tree
                for folder in folders:
                    place = place.setdefault(folder, {})
                place[leaf] = file.get_tensor(name)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataMissing(
            f"{path}: no usable checkpoint ({error}); delete it or leave out --resume"
        ) from None
    return tree, facts


def _apart(named: Sequence[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors by name; those in shared memory, which no file holds, as copies."""
    found: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, value in named:
        plain = value.detach().contiguous()
        place = plain.untyped_storage().data_ptr()
        found[name] = plain.clone() if place in places else plain
        places.add(place)
    return found


def _flatten(tree: Tree, prefix: str = "") -> list[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor]] = []
    for name, value in tree.items():
        if isinstance(value, Tensor):
            found.append((prefix + name, value))
        else:
            found += _flatten(value, f"{prefix}{name}/")
    return found
