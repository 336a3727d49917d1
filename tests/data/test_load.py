"""From a name or a path to a world, with what should be said about it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from privfed.data.interactions import DataError
from privfed.data.load import DataSettings, load, locate, with_features
from privfed.errors import DataMissing
from tests.data import samples


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and no shelf."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("PRIVFED_CACHE", str(folder))
    monkeypatch.delenv("PRIVFED_DATA", raising=False)
    return folder


def log(path: Path, header: str, *rows: str) -> str:
    path.write_text("\n".join([header, *rows]))
    return str(path)


def test_the_demo_needs_no_files() -> None:
    source = load(DataSettings())

    assert source.split == "leave one out by time"
    assert set(source.world.features) == {"image", "text"}
    assert source.world.shape.widths["image"] == 48


def test_the_seed_changes_the_demo() -> None:
    first, other = (load(DataSettings(seed=seed)).world for seed in (0, 1))

    assert first.fingerprint != other.fingerprint


def test_auto_takes_the_split_of_the_source_then_time_then_a_ratio(
    tmp_path: Path,
) -> None:
    rows = [(f"a,{n},{n},train") for n in range(4)]
    given = log(tmp_path / "g.csv", "user,item,time,split", *rows, "a,9,1,test")
    dated = log(tmp_path / "d.csv", "user,item,time", *(r[:-6] for r in rows))
    bare = log(tmp_path / "b.csv", "user,item", *(r[:3] for r in rows))

    words = [load(DataSettings(path)).split for path in (given, dated, bare)]

    assert words == ["given by the source", "leave one out by time", "80/10/10 by user"]


def test_a_named_split_wins(tmp_path: Path) -> None:
    rows = [f"a,{n}" for n in range(4)]
    bare = log(tmp_path / "b.csv", "user,item", *rows)

    source = load(DataSettings(bare, split="leave-one-out"))

    assert source.split == "leave one out by file order"
    assert source.world.test.item.tolist() == [3]
    assert any("no row is dated" in note for note in source.notes)


def test_warm_holds_out_items_that_others_train_on(tmp_path: Path) -> None:
    last = {"a": "12349", "b": "43219", "c": "12345", "d": "54321"}
    rows = [
        f"{who},{it},{n}" for who, them in last.items() for n, it in enumerate(them)
    ]
    path = log(tmp_path / "w.csv", "user,item,time", *rows)

    source = load(DataSettings(path, split="warm"))

    assert source.split == "leave one out by time, warm items"
    items = source.world.test.item
    assert int(source.world.test.counts.sum()) == 4
    assert bool((source.world.popularity[items] > 0).all())


def test_no_features_are_no_features() -> None:
    assert load(DataSettings(features=())).world.features == {}
    assert load(DataSettings(features=())).world.shape.widths == {}


def test_features_change_the_fingerprint() -> None:
    world = load(DataSettings(features=())).world
    ones = with_features(world, {"text": torch.ones(240, 2)})
    twos = with_features(world, {"text": torch.ones(240, 2) * 2})

    assert len({world.fingerprint, ones.fingerprint, twos.fingerprint}) == 3


def test_the_task_decides_labels_and_split(tmp_path: Path) -> None:
    rows = [f"a,{n},{n},{n}" for n in range(1, 5)]
    path = log(tmp_path / "r.csv", "user,item,rating,time", *rows)

    rated = load(DataSettings(path, split="leave-one-out"), "rating")
    assert rated.world.task == "rating"
    assert rated.world.test.label.tolist() == [4.0]
    assert load(DataSettings(path), "rating").split == "80/10/10 by user"
    assert load(DataSettings(path)).world.test.label.tolist() == [1.0]
    bare = log(tmp_path / "b.csv", "user,item", "a,1", "a,2", "a,3")
    with pytest.raises(DataError, match="no ratings"):
        load(DataSettings(bare), "rating")
    with pytest.raises(DataError, match="--split clients is for methods"):
        load(DataSettings(path, split="clients"))


def test_remarks_tell_what_weakens_a_result(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("0 1 2 2\n1 1 3\n")
    (tmp_path / "test.txt").write_text("0 1 9\n1\n")

    notes = " | ".join(load(DataSettings(str(tmp_path), features=())).notes)

    assert "2 rows repeat a pair" in notes
    assert "no validation part" in notes
    assert "1 of 2 users have no test interaction" in notes
    assert "1 of 2 test pairs are in training too" in notes
    assert "50% of test interactions are with items that never occur" in notes


def test_negatives_that_hold_the_test_item_are_told(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::9::5::3\n1::4::3::2\n1::5::3::1\n")
    (tmp_path / "movies.dat").write_text("9::Up::Drama\n")
    (tmp_path / "ml-1m.test.rating").write_text("0\t0\t5\t3\n")
    (tmp_path / "ml-1m.test.negative").write_text("(0,0)\t0\t1\n")

    notes = load(DataSettings(str(tmp_path), features=())).notes

    assert any("negatives of 1 users hold their own test item" in n for n in notes)


def test_clean_data_gets_no_remark(tmp_path: Path) -> None:
    rows = [f"{u},{(u + n) % 4},{n}" for u in range(4) for n in range(4)]
    path = log(tmp_path / "c.csv", "user,item,time", *rows)

    assert load(DataSettings(path)).notes == ()


def test_a_catalog_name_is_looked_for_in_the_cache_then_on_the_shelf(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataMissing, match="run: privfed data get ml-100k"):
        locate("ml-100k")
    monkeypatch.setenv("PRIVFED_DATA", str(tmp_path))
    (tmp_path / "ml-100k").mkdir()
    assert locate("ml-100k") == tmp_path / "ml-100k"
    (cache / "ml-100k").mkdir(parents=True)
    assert locate("ml-100k") == cache / "ml-100k"


def test_other_names_are_paths_then_folders_of_the_shelf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRIVFED_DATA", str(tmp_path))
    (tmp_path / "ku").mkdir()

    assert locate("ku") == tmp_path / "ku"
    assert locate(str(tmp_path)) == tmp_path
    with pytest.raises(DataMissing, match="did you mean 'ml-1m'"):
        locate("ml-1mm")


def test_settings_are_checked_on_construction() -> None:
    with pytest.raises(ValueError, match="split must be one of"):
        DataSettings(split="half")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="data must be a name or a path"):
        DataSettings(data="")


def test_features_of_the_source_reach_the_world(tmp_path: Path) -> None:
    log(
        tmp_path / "inter.csv",
        "userID,itemID,timestamp,split_label",
        "0,0,1,0",
        "0,1,2,2",
    )
    np.save(tmp_path / "text_features.npy", np.eye(2, dtype=np.float16))

    world = load(DataSettings(str(tmp_path))).world

    assert world.features["text"].equal(torch.eye(2, 4))  # padded to whole rows


def test_a_split_made_to_rank_is_not_taken_for_ratings(tmp_path: Path) -> None:
    source = str(samples.ncf(tmp_path))

    assert load(DataSettings(source, features=())).split == "given by the source"
    rated = load(DataSettings(source, features=()), "rating")
    assert rated.split == "80/10/10 by user"


def test_shares_of_a_clients_records_cannot_be_more_than_all() -> None:
    with pytest.raises(ValueError, match="at most 1 together"):
        DataSettings(support=0.9)
