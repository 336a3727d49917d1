"""What is shipped: light to import, typed, and nothing in the wheel but privfed."""

import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pytest

import privfed

ROOT = Path(privfed.__file__).parents[1]
HEAVY = ("torch", "numpy", "pandas", "scipy", "pydantic", "opacus", "sklearn", "rich")
IN_SDIST = (
    "privfed/py.typed",
    "cli.py",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "CITATION.cff",
    "attacks/README.md",
    "attacks/interacted_items.py",
    "defenses/README.md",
    "defenses/noise_study.py",
    "benchmarks/round.py",
    "docs/quickstart.md",
    "tests/test_package.py",
)


def imported_by(code: str) -> set[str]:
    """Top-level packages that a fresh interpreter imports to run some code."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    rows = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]
    return {row.partition(".")[0] for row in rows}


def test_importing_privfed_imports_nothing_else() -> None:
    assert not imported_by("import privfed") & {*HEAVY, "click"}


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["data", "--help"], ["data", "get", "--help"]],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(words: Sequence[str]) -> None:
    found = imported_by(f"from privfed.cli import main; main({[*words]})")

    assert "click" in found  # the command line did run
    assert not found & {*HEAVY}


def test_the_watch_on_imports_would_notice() -> None:
    assert "numpy" in imported_by("import numpy.linalg")


@pytest.mark.skipif(
    not (ROOT / "CHANGELOG.md").exists(), reason="privfed runs outside its checkout"
)
def test_every_file_that_names_a_version_names_this_one() -> None:
    changed = re.findall(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    cited = re.findall(r"^version: (\S+)", (ROOT / "CITATION.cff").read_text(), re.M)

    assert changed[0] == privfed.__version__
    assert cited == [privfed.__version__]


def test_the_installed_version_is_this_one() -> None:
    try:
        installed = metadata.version("privfed")
    except metadata.PackageNotFoundError:
        pytest.skip("privfed is on the path, but not installed")

    assert installed == privfed.__version__


def build(source: Path, target: str, out: Path) -> Path:
    """Build an sdist or a wheel of a source tree; return the archive."""
    pytest.importorskip("hatchling", reason="comes with privfed[test]")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)],
        cwd=source,
        check=True,
        capture_output=True,
    )
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("privfed runs outside its checkout")
    return build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as a packager makes it: from the sdist, not from the checkout."""
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    (source,) = unpacked.iterdir()
    return build(source, "wheel", tmp_path_factory.mktemp("wheel"))


def test_the_sdist_holds_all_that_is_needed_to_study_and_test(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert set(IN_SDIST) <= names
    assert not [name for name in names if name.startswith(("runs/", ".venv/", "dist/"))]
    assert not [name for name in names if "__pycache__" in name]


def test_the_wheel_holds_privfed_alone_with_its_types_and_license(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry,) = (n for n in names if n.endswith(".dist-info/entry_points.txt"))
        told = archive.read(entry).decode()
    shipped = {path.relative_to(ROOT).as_posix() for path in modules()}

    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"privfed"}
    assert shipped | {"privfed/py.typed"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "privfed = privfed.cli:main" in told


def test_the_wheel_works_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    unpacked = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    code = (
        "import sys, privfed; from privfed.cli import main; "
        f"assert privfed.__file__.startswith({str(unpacked)!r}), privfed.__file__; "
        "sys.exit(main(['run', '--method', 'fcf', '--rounds', '1', '--quiet']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(unpacked), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "sign_pc" in done.stdout


def modules() -> list[Path]:
    return sorted(Path(privfed.__file__).parent.rglob("*.py"))
