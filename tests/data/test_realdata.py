"""The published files of known data sets, with their known counts."""

import os
from pathlib import Path

import pytest
import torch

from privfed.data.interactions import Interactions
from privfed.data.load import DataSettings, load
from privfed.data.readers import read

SHELF = os.environ.get("PRIVFED_DATA", "")
pytestmark = [pytest.mark.realdata, pytest.mark.slow]

# folder: users, items, interactions, (train, validation, test)
COUNTS = {
    "ml-100k": (943, 1682, 100_000, None),
    "ml-1m": (6040, 3706, 1_000_209, [994_169, 0, 6040]),
    "ml-1m/poisonfed-split": (6040, 3706, 1_000_208, [802_552, 0, 197_656]),
    "ml-latest-small-2018": (610, 9724, 100_836, None),
    "ku": (204, 560, 3489, [3081, 204, 204]),
    "steam-200k": (12_393, 5155, 128_804, None),
    "fedrecattack/steam": (3753, 5134, 114_713, [110_960, 0, 3753]),
    "fedrecattack/ml-100k": (943, 1682, 99_999, [99_056, 0, 943]),
    "ciao": (7375, 105_096, 282_619, [223_006, 28_240, 31_373]),
    "amazon": (8072, 11_830, 63_836, None),
    "amazon-digital-music": (16_566, 11_797, 169_781, [140_397, 0, 29_384]),
    "pinterest-37k": (37_501, 9836, 1_025_709, [805_742, 0, 219_967]),
    "shakespeare": (3813, 24_877, 318_921, None),
}


def shelved(folder: str) -> Path:
    if not SHELF:
        pytest.skip("PRIVFED_DATA does not name a folder of data sets")
    path = Path(SHELF) / folder
    if not path.exists():
        pytest.skip(f"PRIVFED_DATA has no {folder}")
    return path


@pytest.fixture(scope="module")
def ml_1m() -> Interactions:
    return read(shelved("ml-1m"))


@pytest.mark.parametrize("folder", COUNTS)
def test_counts_are_those_published(folder: str) -> None:
    data = read(shelved(folder))

    parts = None if data.part is None else torch.bincount(data.part.long(), minlength=3)
    assert (data.users, data.items, len(data)) == COUNTS[folder][:3]
    assert (None if parts is None else parts.tolist()) == COUNTS[folder][3]


def test_ml_100k_is_multimodal() -> None:
    data = read(shelved("ml-100k"))

    assert data.texts["title"][0] == "Toy Story (1995)"
    assert data.texts["genre"][0] == "Animation Children's Comedy"
    assert data.texts["overview"][0].startswith("Led by Woody")
    assert len(data.images) == 1663
    assert all(image[:3] == b"\xff\xd8\xff" for image in data.images.values())


def test_ml_1m_has_the_published_histogram(ml_1m: Interactions) -> None:
    assert ml_1m.rating is not None
    assert ml_1m.time is not None
    counts = torch.bincount(ml_1m.rating.long())[1:].tolist()
    assert counts == [56_174, 107_557, 261_197, 348_971, 226_310]
    assert int((ml_1m.time < 0).sum()) == 335_450


def test_ncf_negatives_were_never_trained_on_and_156_are_the_test_item(
    ml_1m: Interactions,
) -> None:
    assert ml_1m.candidates is not None
    assert ml_1m.part is not None
    assert ml_1m.candidates.shape == (6040, 99)
    part = torch.full((ml_1m.users, ml_1m.items), -1, dtype=torch.int8)
    part[ml_1m.user, ml_1m.item] = ml_1m.part
    hits = part.gather(1, ml_1m.candidates)
    assert int((hits == 0).sum()) == 0
    assert int((hits == 2).sum()) == 156


def test_ncf_holds_out_the_latest_rating(ml_1m: Interactions) -> None:
    assert ml_1m.part is not None
    assert ml_1m.time is not None
    latest = torch.zeros(ml_1m.users, dtype=torch.int64)
    latest = latest.scatter_reduce(0, ml_1m.user, ml_1m.time, "amax")
    assert ml_1m.time[ml_1m.part == 2].equal(latest)


def test_ku_features_have_unit_length_and_its_flaw_is_told() -> None:
    shelved("ku")
    source = load(DataSettings("ku"))

    for table in source.world.features.values():
        assert table.shape == (560, 512)
        assert torch.allclose(table.norm(dim=1), torch.ones(560), atol=1e-2)
    assert any("43% of test interactions" in note for note in source.notes)
