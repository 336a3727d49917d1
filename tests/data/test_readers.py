"""Each format is read from files written by hand, and says what is wrong with them."""

import gzip
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from privfed.data.interactions import Interactions, Scale
from privfed.data.readers import FORMATS, adjacency, read
from tests.data.samples import (
    MAKERS,
    amazon,
    ku,
    lists,
    ml_1m,
    ml_100k,
    ml_csv,
    ncf,
    plays,
    recbole,
    steam,
    table,
    tsv,
    write,
)


def triples(data: Interactions) -> list[tuple[str, str]]:
    pairs = zip(data.user.tolist(), data.item.tolist(), strict=True)
    return [(data.user_ids[user], data.item_ids[item]) for user, item in pairs]


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
def test_adjacency_equals_a_plain_loop(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[int]]
) -> None:
    lines = "\r\n".join(
        f"{user}  {' '.join(map(str, items))} " for user, items in enumerate(rows)
    )
    file = tmp_path_factory.getbasetemp() / "lists.txt"
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


@pytest.mark.parametrize(
    ("ratings", "scale"),
    [
        ((1, 3, 5), Scale(1, 5, 1)),
        ((0.5, 2), Scale(0.5, 5, 0.5)),
        ((-10, 0, 5), Scale(-10, 5, 5)),
        ((0, 1, 2.7), Scale(0, 2.7, 2.7e-6)),
    ],
)
def test_scale_is_the_grid_that_ratings_lie_on(
    ratings: tuple[float, ...], scale: Scale, tmp_path: Path
) -> None:
    rows = "".join(f"{at},1,{rating}\n" for at, rating in enumerate(ratings))
    write(tmp_path / "t.csv", f"user,item,rating\n{rows}")

    found = read(tmp_path / "t.csv").scale

    assert found is not None
    assert (found.low, found.high) == (scale.low, scale.high)
    assert found.step == pytest.approx(scale.step)


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
    tmp_path_factory: pytest.TempPathFactory,
    rows: dict[tuple[str, str], tuple[int, int]],
) -> None:
    rows = {**rows, ("first", "x"): (1, 0), ("last", "x"): (5, 0)}
    lines = [f"{u},{i},{r},{t}" for (u, i), (r, t) in rows.items()]
    file = tmp_path_factory.getbasetemp() / "table.csv"
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
