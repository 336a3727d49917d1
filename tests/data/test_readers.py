"""Each format is read from files written by hand, and says what is wrong with them."""

import gzip
import io
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from privfed.data.interactions import DataError, Interactions, Scale
from privfed.data.readers import FORMATS, adjacency, read
from privfed.data.readers.arrays import matrix
from privfed.errors import SettingsError

ITEM = "|01-Jan-1995||url|" + "|".join("0001" + "0" * 15)
TEMPORARY = tempfile.TemporaryDirectory()  # hypothesis has no tmp_path an example
COMEDY = "|01-Jan-1995||url|" + "|".join("00000" + "1" + "0" * 13)


def ml_100k(folder: Path) -> Path:
    write(folder / "u.data", "2\t1\t3\t50\n1\t2\t4\t70\n1\t1\t5\t60\n")
    write(folder / "u.user", "1|24|M|writer|85711\n2|53|F|other|94043\n")
    latin = f"1|Amélie{ITEM}\n2|Heat{COMEDY}\n".encode("latin-1")
    (folder / "u.item").write_bytes(latin)
    return folder


def ml_1m(folder: Path) -> Path:
    write(folder / "ratings.dat", "1::9::5::30\n1::4::3::20\n2::4::1::10\n2::9::2::5\n")
    write(folder / "movies.dat", "4::Jumanji (1995)::Adventure|Fantasy\n9::Up::Drama\n")
    write(folder / "users.dat", "1::F::1::10::48067\n2::M::56::16::70072\n")
    return folder


def ncf(folder: Path) -> Path:
    write(folder / "ml-1m.test.rating", "0\t0\t5\t30\n1\t1\t1\t10\n")
    write(folder / "ml-1m.test.negative", "(1,1)\t0\t0\n(0,0)\t1\t1\n")
    return ml_1m(folder)


def ml_csv(folder: Path) -> Path:
    write(
        folder / "ratings.csv",
        "userId,movieId,rating,timestamp\r\n1,30,4.5,11\r\n1,7,0.5,10\r\n",
    )
    write(
        folder / "movies.csv",
        'movieId,title,genres\n7,"Day, The",Comedy|Drama\n30,Up,(no genres listed)\n',
    )
    return folder


def ku(folder: Path) -> Path:
    write(
        folder / "inter.csv",
        "userID,itemID,rating,timestamp,split_label\n"
        "0,1,1.0,1516237335600,0\n0,1,1.0,1516237335600,0\n1,0,1.0,1516237335601,2\n",
    )
    np.save(folder / "image_features.npy", np.ones((2, 3), dtype=np.float16))
    return folder


def lists(folder: Path) -> Path:
    write(folder / "train.txt", "0 5 2\n1 2\n")
    write(folder / "test.txt", "0 1\n1\n")
    return folder


def tsv(folder: Path) -> Path:
    write(folder / "ciao.train.rating", "0\t2\t5.0\n1\t0\t4.0\n")
    write(folder / "ciao.valid.rating", "0\t1\t1.0\n")
    write(folder / "ciao.test.rating", "1\t2\t2.0\n")
    return folder


def recbole(folder: Path) -> Path:
    write(
        folder / "x.inter",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        "b\t10\t3\t881250949\na\t9\t5\t891717742\n",
    )
    write(folder / "x.item", "item_id:token\tmovie_title:token_seq\n9\tNine\n10\tTen\n")
    write(folder / "x.user", "user_id:token\tage:token\na\t24\nb\t\n")
    return folder


def steam(folder: Path) -> Path:
    write(
        folder / "steam-200k.csv",
        '7,"Half-Life, 2",purchase,1.0,0\n7,"Half-Life, 2",play,9.5,0\n'
        '7,"Half-Life, 2",purchase,1.0,0\n3,Portal,purchase,1.0,0\n',
    )
    return folder


def amazon(folder: Path) -> Path:
    write(folder / "ratings.dat", "B,y,5.0,20\r\nA,x,2.0,10\r\nB,x,1.0,10\r\n")
    return folder


def plays(folder: Path) -> Path:
    write(
        folder / "shakespeare.txt",
        "hamlet@0\tHAMLET\tTo be, or not to be.\nhamlet@9\t\tThat's it\n"
        "hamlet@20\t\nhamlet@30\t\tACT II\nhamlet@40\tGHOST\tBe!\n",
    )
    return folder


def table(folder: Path) -> Path:
    write(
        folder / "log.csv",
        "Rating,USER_ID,extra,movieId,timestamp,split\n"
        "2,ann,?,z,30,train\n4.5,ann,?,y,,val\n3,bob,?,z,20,test\n",
    )
    return folder


def write(path: Path, words: str) -> None:
    path.write_bytes(words.encode())


def triples(data: Interactions) -> list[tuple[str, str]]:
    pairs = zip(data.user.tolist(), data.item.tolist(), strict=True)
    return [(data.user_ids[user], data.item_ids[item]) for user, item in pairs]


MAKERS: dict[str, Callable[[Path], Path]] = {
    "ml-100k": ml_100k,
    "ml-1m": ml_1m,
    "ml-csv": ml_csv,
    "ku": ku,
    "adjacency": lists,
    "tsv": tsv,
    "recbole": recbole,
    "steam-200k": steam,
    "amazon": amazon,
    "plays": plays,
    "table": table,
}


def test_every_format_has_a_test_and_a_line_of_help() -> None:
    assert set(MAKERS) == set(FORMATS)
    assert all(FORMATS.values())


@pytest.mark.parametrize("name", MAKERS)
def test_auto_finds_the_format_and_rows_are_sorted(name: str, tmp_path: Path) -> None:
    folder = MAKERS[name](tmp_path)

    found, named = read(folder), read(folder, name)

    assert found.fingerprint == named.fingerprint
    assert bool((found.user.diff() >= 0).all())
    assert int(found.user.max()) < found.users == len(found.user_ids)
    assert int(found.item.max()) < found.items == len(found.item_ids)
    if found.time is not None:
        same_user = found.user.diff() == 0
        assert bool((found.time.diff()[same_user] >= 0).all())


def test_ml_100k_has_ratings_titles_genres_and_demographics(tmp_path: Path) -> None:
    data = read(ml_100k(tmp_path))

    assert triples(data) == [("1", "1"), ("1", "2"), ("2", "1")]
    assert data.rating is not None
    assert data.time is not None
    assert data.rating.tolist() == [5, 4, 3]
    assert data.time.tolist() == [60, 70, 50]
    assert data.scale == Scale(1, 5, 1)
    assert data.texts == {"title": ("Amélie", "Heat"), "genre": ("Animation", "Comedy")}
    assert data.attributes["occupation"] == ("writer", "other")
    assert data.attributes["zip"] == ("85711", "94043")


def test_ml_100k_takes_overviews_and_posters_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "tmdb_items.csv", 'movie_id,overview\n2,"Two\nlines, here"\n')
    with zipfile.ZipFile(tmp_path / "posters.zip", "w") as archive:
        archive.writestr("posters/", b"")
        archive.writestr("posters/2.jpg", b"two")
        archive.writestr("posters/77.jpg", b"nobody rated this one")
        archive.writestr("posters/notes.txt", b"no image")

    data = read(ml_100k(tmp_path))

    assert data.texts["overview"] == ("", "Two\nlines, here")
    assert data.images == {1: b"two"}


def test_a_folder_of_posters_goes_before_the_zip(tmp_path: Path) -> None:
    (tmp_path / "posters").mkdir()
    (tmp_path / "posters" / "1.PNG").write_bytes(b"one")
    (tmp_path / "posters.zip").write_bytes(b"never opened")

    assert read(ml_100k(tmp_path)).images == {0: b"one"}


def test_ml_1m_numbers_items_by_first_appearance(tmp_path: Path) -> None:
    data = read(ml_1m(tmp_path))

    assert data.item_ids == ("9", "4")
    assert triples(data) == [("1", "4"), ("1", "9"), ("2", "9"), ("2", "4")]
    assert data.texts["genre"] == ("Drama", "Adventure Fantasy")
    assert data.attributes["gender"] == ("F", "M")
    assert data.part is None


def test_ml_1m_with_ncf_files_has_their_split_and_negatives(tmp_path: Path) -> None:
    data = read(ncf(tmp_path))

    assert data.part is not None
    assert data.candidates is not None
    held_out = (data.part == 2).nonzero().flatten()
    assert [triples(data)[at] for at in held_out] == [("1", "9"), ("2", "4")]
    assert data.candidates.tolist() == [[1, 1], [0, 0]]


def test_undated_rows_come_first_and_are_marked(tmp_path: Path) -> None:
    write(tmp_path / "users.dat", "1::F::1::10::48067\n")
    rows = b"user,item,rating,timestamp\n1,5,4,9\n1,6,4,\n1,7,3,8\n"
    (tmp_path / "ratings.csv.gz").write_bytes(gzip.compress(rows))

    data = read(tmp_path)

    assert data.time is not None
    assert data.time.tolist() == [-1, 8, 9]
    assert triples(data) == [("1", "6"), ("1", "7"), ("1", "5")]


def test_ml_csv_has_half_stars_and_quoted_titles(tmp_path: Path) -> None:
    data = read(ml_csv(tmp_path))

    assert data.item_ids == ("7", "30")
    assert data.scale == Scale(0.5, 5, 0.5)
    assert data.texts == {"title": ("Day, The", "Up"), "genre": ("Comedy Drama", "")}


def test_ku_keeps_repeats_split_and_features(tmp_path: Path) -> None:
    data = read(ku(tmp_path))

    assert len(data) == 3
    assert data.part is not None
    assert data.part.tolist() == [0, 0, 2]
    assert data.rating is None
    assert data.features["image"].equal(torch.ones(2, 3))
    assert data.time is not None
    assert data.time[0] == 1516237335600


def test_adjacency_reads_train_and_test_and_allows_gaps(tmp_path: Path) -> None:
    data = read(lists(tmp_path))

    assert (data.users, data.items) == (2, 6)
    assert data.part is not None
    assert triples(data) == [("0", "5"), ("0", "2"), ("0", "1"), ("1", "2")]
    assert data.part.tolist() == [0, 0, 2, 0]


def test_one_adjacency_file_has_no_split(tmp_path: Path) -> None:
    data = read(lists(tmp_path) / "train.txt")

    assert data.part is None
    assert len(data) == 3


@given(st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=6), min_size=1))
def test_adjacency_equals_a_plain_loop(rows: list[list[int]]) -> None:
    lines = "\r\n".join(
        f"{user}  {' '.join(map(str, items))} " for user, items in enumerate(rows)
    )
    file = Path(TEMPORARY.name) / "lists.txt"
    file.write_text(lines, newline="")

    frame = adjacency.lists(file, users_may_be_empty=False)

    looped = [
        (user, item, user + 1) for user, items in enumerate(rows) for item in items
    ]
    assert list(frame.itertuples(index=False, name=None)) == looped


def test_tsv_joins_three_files(tmp_path: Path) -> None:
    data = read(tsv(tmp_path))

    assert data.name == "ciao"
    assert data.part is not None
    assert data.rating is not None
    assert data.part.tolist() == [0, 1, 0, 2]
    assert data.rating.tolist() == [5, 1, 4, 2]


def test_recbole_orders_numbers_as_numbers_and_words_by_appearance(
    tmp_path: Path,
) -> None:
    data = read(recbole(tmp_path))

    assert data.item_ids == ("9", "10")
    assert data.user_ids == ("b", "a")
    assert data.texts == {"title": ("Nine", "Ten")}
    assert data.attributes == {"age": ("", "24")}


def test_the_two_copies_of_ml_100k_have_one_fingerprint(tmp_path: Path) -> None:
    official, copy = tmp_path / "a", tmp_path / "b"
    official.mkdir()
    copy.mkdir()
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    rows = (ml_100k(official) / "u.data").read_text()
    write(copy / "ml-100k.inter", header + rows)

    assert read(official).fingerprint == read(copy).fingerprint


def test_steam_counts_a_purchase_once_and_no_play(tmp_path: Path) -> None:
    data = read(steam(tmp_path))

    assert triples(data) == [("3", "Portal"), ("7", "Half-Life, 2")]
    assert data.texts["title"] == data.item_ids
    assert data.rating is None


def test_steam_renumbered_has_titles(tmp_path: Path) -> None:
    inner = tmp_path / "steam"
    inner.mkdir()
    write(inner / "game_purchase.dat", "User_ID\tGame_ID\tPurchase\n1\t2\t1.0\n")
    write(inner / "item_info.dat", "Game_ID\tGame Name\n2\tFallout 4\n")

    assert read(tmp_path).texts["title"] == ("Fallout 4",)


def test_amazon_is_told_from_movielens_by_its_commas(tmp_path: Path) -> None:
    data = read(amazon(tmp_path))

    assert triples(data) == [("B", "x"), ("B", "y"), ("A", "x")]
    assert data.scale == Scale(1, 5, 1)


def test_plays_make_roles_of_speakers_and_items_of_words(tmp_path: Path) -> None:
    data = read(plays(tmp_path))

    hamlet = [word for role, word in triples(data) if role == "hamlet/HAMLET"]
    assert hamlet == ["to", "be", "or", "not", "that's", "it"]
    assert data.user_ids == ("hamlet/HAMLET", "hamlet/GHOST")


def test_table_knows_usual_names_and_words_for_parts(tmp_path: Path) -> None:
    data = read(table(tmp_path))

    assert triples(data) == [("ann", "y"), ("ann", "z"), ("bob", "z")]
    assert data.part is not None
    assert data.time is not None
    assert data.part.tolist() == [1, 0, 2]
    assert data.time.tolist() == [-1, 30, 20]
    assert data.scale == Scale(0.5, 5, 0.5)


def test_table_takes_names_of_columns(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", "who;what;item\n1;a;x\n2;b;y\n")

    data = read(tmp_path / "t.csv", "table:user=who,item=what")

    assert data.item_ids == ("a", "b")


def test_equal_ratings_are_implicit_data(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", "user,item,rating\n1,1,1\n2,1,1\n")

    assert read(tmp_path / "t.csv").rating is None


def test_parquet_reads_as_csv_does(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    csv = read(table(tmp_path))
    frame = pd.read_csv(tmp_path / "log.csv")
    frame.to_parquet(tmp_path / "log.parquet")

    assert read(tmp_path / "log.parquet").fingerprint == csv.fingerprint


def test_repeats_can_be_dropped_or_kept(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", "user,item\na,x\na,x\nb,x\n")

    assert len(read(tmp_path / "t.csv", "table:repeats=drop")) == 2
    assert len(read(tmp_path / "t.csv", "table:repeats=keep")) == 3


pairs = st.tuples(st.text("ab1", min_size=1), st.text("xyz2", min_size=1))


@given(st.dictionaries(pairs, st.tuples(st.integers(1, 5), st.integers(0, 99))))
def test_table_gives_back_what_was_written(
    rows: dict[tuple[str, str], tuple[int, int]],
) -> None:
    rows = {**rows, ("first", "x"): (1, 0), ("last", "x"): (5, 0)}
    lines = [f"{u},{i},{r},{t}" for (u, i), (r, t) in rows.items()]
    file = Path(TEMPORARY.name) / "table.csv"
    file.write_text("user,item,rating,timestamp\n" + "\n".join(lines))

    data = read(file)

    assert data.rating is not None
    assert data.time is not None
    values = zip(data.rating.tolist(), data.time.tolist(), strict=True)
    assert dict(zip(triples(data), values, strict=True)) == rows
    slow = sorted(rows, key=lambda pair: rows[pair][1])  # stable: ties in file order
    for user in data.user_ids:
        mine = [item for who, item in triples(data) if who == user]
        assert mine == [item for who, item in slow if who == user]


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
