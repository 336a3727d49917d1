"""Item features: what each spec gives, and what is refused."""

import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from privfed.data.encoders.cache import digest
from privfed.data.features import encode, gaps
from privfed.data.interactions import DataError, Interactions
from privfed.errors import DataMissing, PrivfedError, SettingsError

GENRES = ("Sci-Fi Action", "Children's Comedy", "Comedy", "Action Comedy")


def data(
    texts: dict[str, tuple[str, ...]] | None = None,
    features: dict[str, Tensor] | None = None,
    images: dict[int, bytes] | None = None,
    items: int = 4,
    **more: Any,
) -> Interactions:
    nobody = torch.empty(0, dtype=torch.int64)
    return Interactions(
        "small", 1, items, nobody, nobody,
        texts=texts or {}, features=features or {}, images=images or {}, **more,
    )  # fmt: skip


def jpeg(color: tuple[int, int, int], size: tuple[int, int] = (8, 12)) -> bytes:
    return encoded(Image.new("RGB", size, color), "JPEG", quality=100)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


PLUGIN = """
from dataclasses import dataclass
import numpy as np, torch
from privfed.data.encoders import ImageEncoder, TextEncoder

calls = []

@dataclass(frozen=True)
class Length(TextEncoder):
    scale: float = 1.0
    version = "1"

    def __post_init__(self):
        if self.scale <= 0:
            raise ValueError("scale must be above 0")

    def encode_texts(self, texts):
        calls.append(list(texts))
        with torch.inference_mode():
            return torch.tensor([[self.scale * len(text)] for text in texts])

@dataclass(frozen=True)
class Color(ImageEncoder):
    version = "1"

    def encode_images(self, images):
        calls.append(len(images))
        return torch.tensor(np.stack([np.asarray(i).mean((0, 1)) for i in images]))

@dataclass(frozen=True)
class Broken(TextEncoder):
    version = "1"

    def encode_texts(self, texts):
        return torch.full((1, 2), float("nan"))

@dataclass(frozen=True)
class NaN(TextEncoder):
    version = "1"

    def encode_texts(self, texts):
        return torch.full((len(texts), 2), float("nan"))

@dataclass(frozen=True)
class NoEncoder:
    pass
"""
POINTS = """[privfed.encoders]
length = a_plugin:Length
color = a_plugin:Color
broken = a_plugin:Broken
nan = a_plugin:NaN
no-encoder = a_plugin:NoEncoder
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Installs a package with encoders of its own; returns what they were given."""
    site = tmp_path / "site"
    info = site / "a_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "a_plugin.py").write_text(PLUGIN)
    (info / "entry_points.txt").write_text(POINTS)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: a-plugin\nVersion: 1\n"
    )
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "a_plugin", raising=False)
    import a_plugin  # type: ignore[import-not-found]

    found: list[Any] = a_plugin.calls
    return found


# What each spec gives


def test_auto_gives_what_came_with_the_data() -> None:
    came = torch.rand(4, 3).half()

    got = encode(data({"title": GENRES}, {"image": came}), ["auto"])

    assert got.keys() == {"image"}
    assert torch.equal(got["image"], came.float())


def test_auto_encodes_text_where_no_features_came() -> None:
    got = encode(data({"genre": GENRES, "blank": ("", " ", "", "")}), ["auto"])

    assert got.keys() == {"genre"}


def test_auto_and_none_give_nothing_where_there_is_nothing() -> None:
    assert encode(data(), ["auto"]) == {}
    assert encode(data({"genre": GENRES}), ["none"]) == {}
    assert encode(data({"genre": GENRES}), []) == {}


def test_features_are_a_copy() -> None:
    came = torch.ones(4, 2)

    encode(data(features={"image": came}), ["given"])["image"].zero_()

    assert torch.equal(came, torch.ones(4, 2))


def test_tfidf_of_few_words_is_the_formula() -> None:
    got = encode(data({"genre": GENRES}), ["genre=tfidf"])["genre"]

    words = ["action", "children's", "comedy", "sci-fi"]
    held = np.array([[w in g.lower().split() for w in words] for g in GENRES], float)
    weight = held * (np.log((1 + 4) / (1 + held.sum(0))) + 1)
    weight /= np.linalg.norm(weight, axis=1, keepdims=True)
    np.testing.assert_allclose(got.numpy(), weight, atol=1e-6)


def test_reduced_tfidf_is_the_best_approximation_of_its_width() -> None:
    texts = tuple(f"w{i} w{i * i % 13} w{i % 5} x{i % 3}" for i in range(30))
    whole = encode(data({"t": texts}, items=30), ["t=tfidf:width=500"])["t"].double()

    got = encode(data({"t": texts}, items=30), ["t=tfidf:width=7"])["t"].double()

    u, s, vt = torch.linalg.svd(whole, full_matrices=False)
    best = (u[:, :7] * s[:7]) @ vt[:7]
    assert got.shape == (30, 7)
    torch.testing.assert_close(got @ got.T, best @ best.T, atol=1e-5, rtol=0)


def test_tfidf_is_no_wider_than_the_items_can_fill() -> None:
    texts = ("one two three four five", "six seven eight nine ten")

    got = encode(data({"t": texts}, items=2), ["t=tfidf:width=3"])["t"]

    assert got.shape == (2, 2)
    torch.testing.assert_close(got @ got.T, torch.eye(2), atol=1e-6, rtol=0)


@given(st.permutations(range(4)))
def test_tfidf_follows_the_items(order: list[int]) -> None:
    plain = encode(data({"g": GENRES}), ["g=tfidf"])["g"]
    moved = encode(data({"g": tuple(GENRES[i] for i in order)}), ["g=tfidf"])["g"]

    torch.testing.assert_close(moved, plain[order], atol=1e-6, rtol=0)


def test_items_without_a_text_or_an_image_are_zeros(calls: list[Any]) -> None:
    world = data({"t": ("abc", "", " ", "de")}, images={2: jpeg((200, 0, 0))})

    got = encode(world, ["length", "color"])

    assert got["t"].tolist() == [[3], [0], [0], [2]]
    assert calls == [["abc", "de"], 1]
    torch.testing.assert_close(
        got["image"][2], torch.tensor([200.0, 0, 0]), atol=3, rtol=0
    )
    assert got["image"][[0, 1, 3]].count_nonzero() == 0
    assert gaps(got) == (
        "t: 2 of 4 items have none; their rows are zeros",
        "image: 3 of 4 items have none; their rows are zeros",
    )


@pytest.mark.usefixtures("calls")
def test_features_can_be_trained_through() -> None:
    got = encode(data({"t": GENRES}), ["length"])["t"]

    assert not got.is_inference()
    weight = torch.ones(1, requires_grad=True)
    (slope,) = torch.autograd.grad((weight * got).sum(), weight)
    assert slope.item() == got.sum().item()


@pytest.mark.usefixtures("calls")
def test_specs_add_up_and_the_exact_one_wins(tmp_path: Path) -> None:
    np.save(tmp_path / "more.npy", np.ones((4, 2), np.float16))
    world = data({"t": GENRES, "genre": GENRES}, images={0: jpeg((0, 0, 0))})
    specs = ["tfidf", "t=length", "poster=color", f"more={tmp_path / 'more.npy'}"]

    got = encode(world, specs)

    widths = {name: rows.shape[1] for name, rows in got.items()}
    assert widths == {"t": 1, "genre": 4, "poster": 3, "more": 2}
    assert all(rows.dtype == torch.float32 for rows in got.values())


def test_an_encoder_takes_settings(calls: list[Any]) -> None:
    got = encode(data({"t": GENRES}), ["length:scale=2"])["t"]

    assert got.flatten().tolist() == [2.0 * len(text) for text in GENRES]
    assert len(calls) == 1


# Specs that are refused


@pytest.mark.usefixtures("calls")
@pytest.mark.parametrize(
    ("specs", "told"),
    [
        (["tfdif"], "did you mean 'tfidf'"),
        (["title=tfdif"], "did you mean 'tfidf'"),
        (["titel=tfidf"], "did you mean 'title'"),
        (["title=color"], "does not read"),
        (["poster=length"], "does not read images"),
        (["tfidf:witdh=3"], "did you mean 'width'"),
        (["tfidf:width=0"], "width must be at least 1"),
        (["tfidf:width=x"], "width"),
        (["tfidf:width"], "setting=value"),
        (["length:scale=-1"], "scale must be above 0"),
        (["tfidf", "length"], "two specs give 'title'"),
        (["title=tfidf", "title=length"], "two specs give 'title'"),
        (["no-encoder"], "TextEncoder or ImageEncoder"),
        (["broken"], "4 values gave (1, 2)"),
        (["nan"], "item 0 has NaN"),
        (["given"], "without features"),
        (["title="], "no ''"),
    ],
)
def test_a_wrong_spec_is_told(specs: list[str], told: str) -> None:
    world = data({"title": GENRES}, images={0: jpeg((0, 0, 0))})

    with pytest.raises(SettingsError) as refused:
        encode(world, specs)

    assert told in str(refused.value)


@pytest.mark.parametrize("spec", ["tfidf", "title=tfidf", "poster=efficientnet"])
def test_an_encoder_with_nothing_to_read_is_told(spec: str) -> None:
    with pytest.raises(SettingsError, match="small"):
        encode(data(), [spec])


def test_texts_without_words_are_told_with_their_column() -> None:
    with pytest.raises(DataError, match=r"title: tfidf finds no word"):
        encode(data({"title": ("!", "?", "...", "-")}), ["auto"])


def test_a_column_of_the_wrong_length_is_told() -> None:
    with pytest.raises(DataError, match="title: 4 texts for 5 items"):
        encode(data({"title": GENRES}, items=5), ["auto"])


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (torch.ones(3, 2), "shape"),
        (torch.ones(4), "shape"),
        (torch.ones(4, 0), "shape"),
        (torch.tensor([[0.0], [1.0], [float("nan")], [1.0]]), "item 2 has NaN"),
        (torch.tensor([[0.0], [float("inf")], [0.0], [1.0]]), "item 1 has NaN"),
    ],
)
def test_unusable_given_features_are_told(rows: Tensor, told: str) -> None:
    with pytest.raises(DataError, match=told):
        encode(data(features={"image": rows}), ["auto"])


# Arrays from files


def cut(path: Path) -> None:
    np.save(path, np.ones((4, 300), np.float32))
    path.write_bytes(path.read_bytes()[:-40])


class Harm:
    """Would write a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def nan_row(path: Path) -> None:
    array = np.ones((4, 2), np.float32)
    array[3, 1] = np.nan
    np.save(path, array)


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda p: np.save(p, np.ones((4, 2))), "float16 or float32"),
        (lambda p: np.save(p, np.ones((4, 2), np.int64)), "float16 or float32"),
        (lambda p: np.save(p, np.ones((3, 2), np.float32)), r"shape \(3, 2\)"),
        (lambda p: np.save(p, np.ones(4, np.float32)), r"shape \(4,\)"),
        (lambda p: np.save(p, np.ones((4, 0), np.float32)), "shape|no array"),
        (nan_row, "item 3 has NaN"),
        (cut, "no array can be read"),
        (lambda p: p.write_bytes(b""), "no array can be read"),
        (lambda p: p.write_bytes(b"user,item\n1,2\n"), "no array can be read"),
    ],
)
def test_an_unusable_array_is_told(
    tmp_path: Path, write: Callable[[Path], None], told: str
) -> None:
    write(tmp_path / "rows.npy")

    with pytest.raises(DataError, match=told):
        encode(data(), [f"image={tmp_path / 'rows.npy'}"])


def test_a_zip_of_arrays_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", rows=np.ones((4, 2), np.float32))
    (tmp_path / "rows.npz").rename(tmp_path / "rows.npy")

    with pytest.raises(DataError, match="float16 or float32"):
        encode(data(), [f"image={tmp_path / 'rows.npy'}"])


def test_a_missing_array_is_told() -> None:
    with pytest.raises(DataMissing, match="nowhere"):
        encode(data(), ["image=nowhere.npy"])


def test_no_array_is_unpickled(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    np.save(tmp_path / "rows.npy", np.array([Harm(trap)] * 4), allow_pickle=True)

    with pytest.raises(DataError, match="no array can be read"):
        encode(data(), [f"image={tmp_path / 'rows.npy'}"])

    assert not trap.exists()


# Images that mean harm


def bomb() -> bytes:
    return encoded(Image.new("1", (9000, 9000)), "PNG")


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (b"", "cannot be read"),
        (b"<html>not found</html>", "cannot be read"),
        (jpeg((9, 9, 9), (64, 64))[:-60], "cannot be read"),
        (encoded(Image.new("RGB", (8, 8)), "PNG")[:-20], "cannot be read"),
        (encoded(Image.new("RGB", (8, 8)), "GIF"), "cannot be read"),
        (encoded(Image.new("RGB", (8, 8)), "TIFF"), "cannot be read"),
        (bomb(), "9000 x 9000 pixels"),
        (encoded(Image.new("1", (20000, 20000)), "PNG"), "cannot be read"),
        (encoded(Image.new("RGB", (1, 400)), "PNG"), "longer than 20 times"),
        (b"\xff" * (2**25 + 1), "over 32 MiB"),
    ],
    ids=[
        "empty",
        "page",
        "cut",
        "cut-png",
        "gif",
        "tiff",
        "bomb",
        "huge",
        "thin",
        "fat",
    ],
)
@pytest.mark.usefixtures("calls")
def test_a_bad_image_is_told_with_its_item(bad: bytes, told: str) -> None:
    world = data(images={1: jpeg((0, 0, 0)), 2: bad}, item_ids=("a", "b", "c", "d"))

    with pytest.raises(DataError, match=f"image of item 'c': .*{told}"):
        encode(world, ["color"])


@pytest.mark.usefixtures("calls")
@pytest.mark.parametrize("mode", ["P", "L", "RGBA", "CMYK", "1"])
def test_every_kind_of_picture_is_read_as_rgb(mode: str) -> None:
    gray = Image.new("RGB", (6, 6), (255, 255, 255)).convert(mode)
    options = {"transparency": bytes(range(256))} if mode == "P" else {}
    form = "JPEG" if mode == "CMYK" else "PNG"

    got = encode(data(images={0: encoded(gray, form, **options)}), ["color"])

    torch.testing.assert_close(got["image"][0], torch.full((3,), 255.0), atol=2, rtol=0)


@pytest.mark.usefixtures("calls")
def test_an_image_of_no_item_is_told() -> None:
    with pytest.raises(DataError, match="image of item 4: there are 4 items"):
        encode(data(images={4: jpeg((0, 0, 0))}), ["color"])


# The cache


def test_what_was_encoded_is_not_encoded_again(
    tmp_path: Path, calls: list[Any]
) -> None:
    world = data({"t": GENRES}, images={0: jpeg((1, 2, 3))})

    first = encode(world, ["length", "color"], tmp_path / "cache")
    again = encode(world, ["length", "color"], tmp_path / "cache")

    assert len(calls) == 2
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".safetensors"] * 2


@pytest.mark.parametrize(
    ("texts", "spec"),
    [
        (GENRES, "length:scale=2"),
        ((*GENRES[:3], "Action comedy"), "length"),
        ((*GENRES[1:], GENRES[0]), "length"),
        (("a b", "c", "d", "e"), "length"),
    ],
)
def test_other_texts_or_settings_are_encoded_anew(
    tmp_path: Path, calls: list[Any], texts: tuple[str, ...], spec: str
) -> None:
    encode(data({"t": GENRES}), ["length"], tmp_path / "cache")
    encode(data({"t": texts}), [spec], tmp_path / "cache")

    assert len(calls) == 2


def test_where_texts_end_matters_to_the_cache() -> None:
    assert digest([b"ab", b"c"]) != digest([b"a", b"bc"])
    assert digest([b""]) != digest([])


def overwrite(path: Path) -> None:
    path.write_bytes(b"nonsense")


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-6])


def flip(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[-2] ^= 1
    path.write_bytes(bytes(whole))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [overwrite, halve, flip, empty])
def test_a_damaged_cache_is_made_anew(
    tmp_path: Path, calls: list[Any], damage: Callable[[Path], None]
) -> None:
    world, cache = data({"t": GENRES}), tmp_path / "cache"
    first = encode(world, ["length"], cache)["t"]
    (kept,) = cache.iterdir()
    damage(kept)

    assert torch.equal(encode(world, ["length"], cache)["t"], first)
    assert torch.equal(encode(world, ["length"], cache)["t"], first)
    assert len(calls) == 2


@pytest.mark.usefixtures("calls")
def test_a_cache_that_is_no_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")

    with pytest.raises(PrivfedError, match="name another folder"):
        encode(data({"t": GENRES}), ["length"], tmp_path / "cache")
