"""The group: quick to answer, and every command is there."""

import subprocess
import sys
from pathlib import Path

import pytest

import privfed
from privfed.cli import main

Capture = pytest.CaptureFixture[str]
ROOT = Path(privfed.__file__).parents[1]
HEAVY = "{'torch', 'numpy', 'pandas', 'scipy', 'pydantic'}"


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["list", "--help"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        f"import sys; from privfed.cli import main; code = main({words}); "
        f"found = {HEAVY} & sys.modules.keys(); assert not found, found; sys.exit(code)"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True
    )


def test_listing_imports_no_torch() -> None:
    code = (
        "import sys; from privfed.cli import main; code = main(['list']); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True
    )


def test_help_names_commands_and_exit_codes(capsys: Capture) -> None:
    assert main(["--help"]) == 0

    told = capsys.readouterr().out
    for word in ("run", "list", "data", "130  interrupted", "5    the privacy budget"):
        assert word in told


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert privfed.__version__ in capsys.readouterr().out


def test_an_unknown_command_ends_with_2(capsys: Capture) -> None:
    assert main(["rum"]) == 2
    assert "No such command" in capsys.readouterr().err


def test_no_command_shows_the_help(capsys: Capture) -> None:
    assert main([]) == 2
    assert "Usage: privfed" in capsys.readouterr().err


def test_the_launcher_works_from_a_checkout() -> None:
    launcher = ROOT / "cli.py"
    if not launcher.exists():
        pytest.skip("the launcher is not shipped")
    done = subprocess.run(
        [sys.executable, str(launcher), "list", "nothing"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr.startswith("privfed: error: list: no 'nothing'")
