"""Whatever is wrong with a file is told in one line: where, what, and the mend."""

import gzip
import io
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privfed.data.interactions import DataError
from privfed.data.readers import read
from privfed.data.readers.arrays import matrix
from privfed.errors import SettingsError
from tests.data.samples import (
    MAKERS,
    ku,
    ml_100k,
    ncf,
    table,
    write,
)

BAD = [
    ("ml-100k", "u.data", "1\t1\t5\t9\nx\t2\t3\t9\n", "line 2: user is 'x'"),
    ("ml-100k", "u.data", "1\t1\t5\t9\n1\t2\t3.5\t9\n", "line 2: rating 3.5"),
    ("ml-100k", "u.data", "1\t1\t5\t9\n1\t2\t6\t9\n", "line 2: rating 6 is not on"),
    ("ml-100k", "u.data", "1\t1\t5\t9\n1\t1\t4\t8\n", "line 2: user 1 has item 1"),
    ("ml-100k", "u.data", "1\t1\t5\t9\n1\t2\t4", "line 2: cut off"),
    ("ml-100k", "u.data", "1\t1\t5\t9\n\n1\t2\t4\t8\n", "line 2: the line is empty"),
    ("ml-100k", "u.data", "", "line 1: the file is empty"),
    ("ml-100k", "u.data", "1\t1\tnan\t9\n", "line 1: rating is 'nan'"),
    ("ml-100k", "u.data", "1\t1\tinf\t9\n", "line 1: rating is 'inf'"),
    ("ml-100k", "u.item", "1|Amélie|1995\n", "line 1: cut off: 3 cells"),
    ("ml-100k", "u.user", "1|24|M\n", "line 1: cut off: 3 cells"),
    ("ml-100k", "tmdb_items.csv", "id,text\n", "line 1: no columns movie_id"),
    ("ml-1m", "ratings.dat", "1::9::5::30\n1::4::3\n", "line 2: cut off"),
    ("ml-1m", "movies.dat", "4::Jumanji\n", "line 1: cut off"),
    ("ml-csv", "ratings.csv", "userId,rating\n1,2\n", "line 1: no column 'movieId'"),
    ("ml-csv", "ratings.csv", "userId,movieId,rating,timestamp\n", "line 2: no rows"),
    (
        "ml-csv",
        "ratings.csv",
        "userId,movieId,rating,timestamp\n1,2,0.7,3\n",
        "line 2: rating 0.7",
    ),
    (
        "ku",
        "inter.csv",
        "userID,itemID,timestamp,split_label\n0,0,1,7\n",
        "line 2: split 7 is not 0",
    ),
    (
        "ku",
        "inter.csv",
        "userID,itemID,timestamp,split_label\n0,0,1,0\n-1,0,1,0\n",
        "line 3: user -1 is no index",
    ),
    ("adjacency", "train.txt", "0 1\n1\n", "line 2: user 1 has no items"),
    ("adjacency", "train.txt", "0 1\n\n1 2\n", "line 2: the line is empty"),
    ("adjacency", "train.txt", "0 1\n1 x\n", "line 2: 'x' where only whole"),
    ("adjacency", "train.txt", "0 1\n1 99999999999999\n", "line 2: item 9999"),
    ("adjacency", "train.txt", f"0 1\n1 {'9' * 19}\n", "line 2: a number of over"),
    ("tsv", "ciao.test.rating", "1\t2\tgood\n", "ciao.test.rating, line 1: rating"),
    ("tsv", "ciao.test.rating", "0\t2\t1\n", "first: "),
    ("recbole", "x.inter", "user_id:token\trating:float\na\t1\n", "item_id:token"),
    ("steam-200k", "steam-200k.csv", "1,Portal,rented,1.0,0\n", "line 1: behavior"),
    ("amazon", "ratings.dat", "a,x,9,1\n", "line 1: rating 9"),
    ("plays", "shakespeare.txt", "hamlet@1\tA\tBe\nhamlet\n", "line 2: not 'play@"),
    ("table", "log.csv", "user,rating\n1,2\n", "no item column"),
    ("table", "log.csv", "user,item,split\n1,2,later\n", "line 2: split 'later'"),
    ("table", "log.csv", "user,item\n,2\n", "line 2: user is ''"),
    ("table", "log.csv", "user,\ritem\n1,2\n", "line 1: new-line character"),
    ("table", "log.csv", "user,item,time\n1,2,-7\n", "line 2: -7 is no time stamp"),
    ("table", "log.csv", "user,item,time\n1,2,1e300\n", "line 2: 1e+300 is no time"),
    ("ml-100k", "u.data", "1.5\t1\t5\t9\n", "line 1: user is '1.5', not a whole"),
    ("ml-100k", "u.data", "1e999\t1\t5\t9\n", "line 1: user is '1e999', not a whole"),
]


@pytest.mark.parametrize(("format", "file", "words", "message"), BAD)
def test_bad_input_names_file_line_and_fault(
    format: str, file: str, words: str, message: str, tmp_path: Path
) -> None:
    MAKERS[format](tmp_path)
    write(tmp_path / file, words)

    with pytest.raises(DataError) as caught:
        read(tmp_path, format)

    assert message in str(caught.value)
    assert str(tmp_path / file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)  # the mend


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("0\t0\t5\t30\n1\t5\t1\t10\n", "line 2: no such interaction"),
        ("0\tzero\t5\t30\n", "line 1: item is 'zero'"),
    ],
)
def test_ncf_rows_must_be_in_the_ratings(
    words: str, message: str, tmp_path: Path
) -> None:
    write(ncf(tmp_path) / "ml-1m.test.rating", words)

    with pytest.raises(DataError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("(1,1)\t0\t0\n(0,0)\t1\t2\n", "line 2: not"),
        ("(1,1)\t0\t0\n0\t1\t1\n", "line 2: not"),
        ("(1,1)\t0\t0\n(0,0)\t1\n", "line 2: cut off"),
        ("(1,1)\t0\t0\n", "do not name each of 2 users"),
    ],
)
def test_ncf_negatives_must_be_complete(
    words: str, message: str, tmp_path: Path
) -> None:
    write(ncf(tmp_path) / "ml-1m.test.negative", words)

    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_not_utf_8_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"user,item\na,x\nb,\xff\xfe\n")

    with pytest.raises(DataError, match=r"t\.csv, line 3: not UTF-8; save"):
        read(tmp_path / "t.csv")


@pytest.mark.parametrize("cut", [1, 15, 40])
def test_cut_gzip_is_told(cut: int, tmp_path: Path) -> None:
    rows = "user,item\n" + "".join(f"{n},{n * n}\n" for n in range(99))
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(rows.encode())[:-cut])

    with pytest.raises(DataError, match="cut off or not gzip"):
        read(tmp_path / "t.csv.gz", "table")


def test_more_than_the_bound_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("privfed.data.readers.files.MAX_BYTES", 1000)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"user,item\n" * 10_000))

    with pytest.raises(DataError, match="larger than"):
        read(tmp_path / "t.csv.gz", "table")


def test_damaged_zip_of_posters_is_told(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("posters/1.jpg", b"one" * 100)
    damaged = packed.getvalue().replace(b"oneone", b"onetwo", 1)
    (ml_100k(tmp_path) / "posters.zip").write_bytes(damaged)

    with pytest.raises(DataError, match=r"posters\.zip: damaged zip"):
        read(tmp_path)

    (tmp_path / "posters.zip").write_bytes(packed.getvalue()[:-30])
    with pytest.raises(DataError, match=r"posters\.zip: damaged zip"):
        read(tmp_path)


def test_a_huge_poster_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(
        ml_100k(tmp_path) / "posters.zip", "w", zipfile.ZIP_DEFLATED
    ) as archive:
        archive.writestr("posters/1.jpg", bytes(9 * 1024**2))

    with pytest.raises(DataError, match=r"posters/1\.jpg has 9437184 bytes"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((3, 3), dtype=np.float32), "3 rows for 2 items"),
        (np.array([[1.0, 2.0], [np.nan, 1.0]]), r"row 1 \(from 0\) holds NaN"),
        (np.ones(2), "where a float matrix"),
        (np.ones((2, 2), dtype=np.int64), "where a float matrix"),
    ],
)
def test_features_must_fit_the_items(
    array: "np.typing.NDArray[np.float64]", message: str, tmp_path: Path
) -> None:
    np.save(ku(tmp_path) / "image_features.npy", array)

    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_pickled_features_are_never_loaded(tmp_path: Path) -> None:
    objects = np.array([{"a": 1}, None], dtype=object)
    np.save(tmp_path / "image_features.npy", objects, allow_pickle=True)

    with pytest.raises(DataError, match=r"no plain \.npy array"):
        matrix(tmp_path / "image_features.npy", rows=2)


@pytest.mark.parametrize("keep", [0, 5, 100, 130])
def test_cut_features_are_told(keep: int, tmp_path: Path) -> None:
    file = ku(tmp_path) / "image_features.npy"
    file.write_bytes(file.read_bytes()[:keep])

    with pytest.raises(DataError, match="cut off"):
        read(tmp_path)


def test_damaged_parquet_is_told(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 but not really")

    with pytest.raises(DataError, match="damaged parquet"):
        read(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"user": [1, None], "item": [1, 2]}, "row 2: no user"),
        ({"user": [1], "item": [1], "rating": ["good"]}, "row 1: rating is 'good'"),
        ({"user": [1]}, "no item column"),
    ],
)
def test_bad_parquet_names_the_row(
    frame: dict[str, list[object]], message: str, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    pd.DataFrame(frame).to_parquet(tmp_path / "t.parquet")

    with pytest.raises(DataError, match=message):
        read(tmp_path / "t.parquet")


def test_missing_path_and_unknown_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no known format"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("format", "message"),
    [
        ("tabel", "did you mean 'table'"),
        ("table:usr=a", "did you mean 'user'"),
        ("table:repeats=twice", "choose refuse, keep or drop"),
        ("table:low=one", "not a number"),
        ("ml-100k:user=a", "it takes none"),
    ],
)
def test_wrong_formats_are_told_with_a_near_one(
    format: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=message):
        read(table(tmp_path), format)


def test_ratings_outside_the_named_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 3: rating 4\.5 is outside 1 to 4"):
        read(table(tmp_path), "table:low=1,high=4")


@pytest.mark.parametrize("name", MAKERS)
@given(chaos=st.data())
def test_damage_of_any_kind_is_a_data_error_or_none(
    name: str, chaos: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = MAKERS[name](tmp_path_factory.mktemp("damaged"))
    file = chaos.draw(st.sampled_from(sorted(folder.iterdir())))
    whole = file.read_bytes()
    start = chaos.draw(st.integers(0, len(whole)))
    end = chaos.draw(st.integers(start, min(len(whole), start + 9)))
    junk = chaos.draw(st.binary(max_size=9) | st.sampled_from(JUNK))
    file.write_bytes(whole[:start] + junk + whole[end:])

    with suppress(DataError):
        data = read(folder, name)
        assert int(data.item.max()) < data.items
        assert int(data.user.max()) < data.users


JUNK = [b"\x00", b'"', b"\n", b"\r", b"\t", b"9" * 30, b"1e999", b"-5", b"\xff", b""]
