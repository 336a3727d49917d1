"""Checkpoints: whole or not there at all."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from privfed import checkpoint
from privfed.errors import DataMissing

TREE: dict[str, Any] = {
    "model": {"items": torch.arange(6.0).view(2, 3), "head.bias": torch.ones(1)},
    "memory": {"sign_pc": {"seen": torch.tensor([True, False])}},
}
FACTS = {"next": 7, "log": [{"loss": 0.1 + 0.2}], "best": {"value": float("-inf")}}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    checkpoint.save(path, TREE, FACTS)
    tensors, facts = checkpoint.load(path)

    assert facts == FACTS
    assert torch.equal(tensors["model"]["items"], TREE["model"]["items"])
    assert tensors["memory"]["sign_pc"]["seen"].dtype == torch.bool
    assert os.listdir(tmp_path) == [path.name]


def test_views_and_strides_are_saved_as_they_look(tmp_path: Path) -> None:
    path, table = tmp_path / "one", torch.arange(6.0).view(2, 3)
    checkpoint.save(path, {"m": {"t": table.T, "e": table[0].expand(4, 3)}}, {})
    tensors, _ = checkpoint.load(path)

    assert torch.equal(tensors["m"]["t"], table.T)
    assert torch.equal(tensors["m"]["e"], table[0].expand(4, 3))


def test_tensors_that_several_parts_hold_are_saved_for_each(tmp_path: Path) -> None:
    path, table = tmp_path / "one", torch.arange(6.0).view(2, 3)
    checkpoint.save(path, {"model": {"t": table}, "memory": {"seen": table}}, {})
    tensors, _ = checkpoint.load(path)

    assert torch.equal(tensors["model"]["t"], table)
    assert torch.equal(tensors["memory"]["seen"], table)


def test_a_write_that_fails_leaves_the_old_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "one"
    checkpoint.save(path, TREE, FACTS)

    def half(_: Any, beside: Path, **__: Any) -> None:
        beside.write_bytes(b"half a file")
        raise OSError("no space left")

    monkeypatch.setattr(checkpoint, "save_file", half)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(path, TREE, {"next": 8})

    assert checkpoint.load(path)[1]["next"] == 7
    assert os.listdir(tmp_path) == [path.name]


def whole(tmp_path: Path) -> bytes:
    checkpoint.save(tmp_path / "whole", TREE, FACTS)
    return (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("share", [0, 1, 9, 60, 99])
def test_a_cut_file_is_told_from_a_checkpoint(tmp_path: Path, share: int) -> None:
    data = whole(tmp_path)
    bad = tmp_path / "bad"
    bad.write_bytes(data[: len(data) * share // 100])

    with pytest.raises(DataMissing, match="no usable checkpoint") as told:
        checkpoint.load(bad)
    assert len(str(told.value).splitlines()) == 1
    assert str(bad) in str(told.value)


def test_another_safetensors_file_is_no_checkpoint(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.ones(2)}, tmp_path / "other")
    with pytest.raises(DataMissing, match="no usable checkpoint"):
        checkpoint.load(tmp_path / "other")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="no usable checkpoint"):
        checkpoint.load(tmp_path / "nowhere")
