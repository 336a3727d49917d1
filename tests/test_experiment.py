"""Whole runs: what they leave behind, and that a killed one goes on unharmed."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import privfed
from privfed.cli import main
from privfed.config import RunSettings, run_settings
from privfed.experiment import execute, run_id
from privfed.result import Result

SMALL = {
    "method": "fcf:width=16,epochs=1",
    "data": {"data": "demo", "features": []},
    "protocol": {"negatives": 20, "every": 2},
    "machine": {"workers": 1},
    "rounds": 3,
}
RUN = (
    "run --data demo --rounds 6 --checkpoint-every 2 --quiet --workers 1 "
    "--method fedrap:width=16,epochs=6 --defense gaussian:variance=0.01,rows=touched "
    "--sampling uniform --clients-per-round 120 --rest"
)
MAIN = "import sys; from privfed.cli import main; sys.exit(main(sys.argv[1:]))"
DIES_WRITING = """
import os, sys
from privfed import checkpoint
from privfed.cli import main
whole, written = checkpoint.save_file, []
def save_file(tensors, path, metadata):
    whole(tensors, path, metadata)
    written.append(path)
    if len(written) == 2:
        os.truncate(path, 5000)
        os.kill(os.getpid(), 9)
checkpoint.save_file = save_file
sys.exit(main(sys.argv[1:]))
"""


def settings(tmp_path: Path, **changes: Any) -> RunSettings:
    return run_settings(SMALL, {"out": str(tmp_path)}, changes)


def done(asked: RunSettings, resume: bool = False) -> Result:
    return execute(asked, resume, lambda *_: None)


def program(folder: Path, words: str, code: str = MAIN) -> "subprocess.Popen[str]":
    """The command line in a process of its own."""
    root = str(Path(privfed.__file__).parent.parent)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PRIVFED_")}
    return subprocess.Popen(
        [sys.executable, "-c", code, *words.split(), "--out", str(folder)],
        env={**clean, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def without_times(result: Mapping[str, Any]) -> Any:
    """A result.json but for seconds, and for where it was written."""
    found = json.loads(json.dumps(result))
    for key in [k for k in found["figures"] if k.endswith("_seconds")]:
        del found["figures"][key]
    for row in found["rounds"]:
        row.pop("seconds")
    del found["settings"]["out"]
    return found


def result_of(folder: Path) -> Any:
    [path] = folder.glob("*/result.json")
    return without_times(json.loads(path.read_text()))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("undisturbed")
    process = program(folder, RUN)
    assert process.communicate()[1].startswith("run folder")
    return result_of(folder)


@pytest.mark.slow
def test_a_run_killed_between_rounds_goes_on_to_the_same_result(
    tmp_path: Path, undisturbed: Any
) -> None:
    process = program(tmp_path, RUN)
    while not list(tmp_path.glob("*/checkpoints/*.safetensors")):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list(tmp_path.glob("*/result.json"))

    resumed = program(tmp_path, f"{RUN} --resume")
    assert resumed.communicate()[1].startswith("run folder")
    assert result_of(tmp_path) == undisturbed


@pytest.mark.slow
def test_a_run_killed_while_writing_goes_on_from_the_checkpoint_before(
    tmp_path: Path, undisturbed: Any
) -> None:
    process = program(tmp_path, RUN, DIES_WRITING)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    [folder] = tmp_path.glob("*/checkpoints")
    assert len(list(folder.iterdir())) == 2  # the whole one and the torn one

    resumed = program(tmp_path, f"{RUN} --resume")
    assert resumed.communicate()[1].startswith("run folder")
    assert result_of(tmp_path) == undisturbed
    assert [path.name for path in folder.iterdir()] == ["seed-0.safetensors"]


@pytest.mark.slow
def test_two_workers_write_the_same_result(tmp_path: Path, undisturbed: Any) -> None:
    words = RUN.replace("--workers 1", "--workers 2 --memory 64MiB")
    process = program(tmp_path, words)
    assert process.communicate()[1].startswith("run folder")

    found, expected = result_of(tmp_path), dict(undisturbed)
    assert found.pop("settings") != expected.pop("settings")
    assert found == expected


def test_a_broken_checkpoint_is_one_line_and_exit_code_4(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["run", "--method", "fcf:width=16,epochs=1", "--rounds", "2", "--quiet"]
    assert main(words) == 0
    [path] = tmp_path.glob("runs/*/checkpoints/*")
    path.write_bytes(path.read_bytes()[:1000])
    capsys.readouterr()

    assert main([*words, "--resume"]) == 4

    told = capsys.readouterr().err
    assert len(told.strip().splitlines()) == 1
    assert "no usable checkpoint" in told
    assert "seed-0.safetensors" in told
    assert main(words) == 0  # without --resume nobody reads it


def test_resuming_a_finished_run_trains_no_more(tmp_path: Path) -> None:
    asked = settings(tmp_path)
    first = done(asked)
    told: list[object] = []
    again = execute(asked, True, lambda *row: told.append(row))

    assert told == []
    assert without_guessing(again) == without_guessing(first)  # devices' times too


def without_guessing(result: Result) -> Result:
    """A result but for the seconds of attacks, which guess anew."""
    kept = {n: v for n, v in result.figures.items() if not n.endswith(".seconds")}
    return replace(result, figures=kept)


def test_a_run_without_resume_starts_anew(tmp_path: Path) -> None:
    asked = settings(tmp_path)
    done(asked)
    told: list[object] = []
    execute(asked, False, lambda *row: told.append(row) if row[3] else None)

    assert len(told) == 3


def test_a_run_folder_holds_result_rounds_and_settings(tmp_path: Path) -> None:
    asked = settings(tmp_path, seeds=2)
    result = done(asked)
    folder = tmp_path / result.id

    assert without_times(json.loads((folder / "result.json").read_text())) == (
        without_times(result.json())
    )
    rows = [json.loads(x) for x in (folder / "rounds.jsonl").read_text().splitlines()]
    assert [(row["seed"], row["round"]) for row in rows] == [
        (seed, number) for seed in (0, 1) for number in (1, 2, 3)
    ]
    told = tomllib.loads((folder / "settings.toml").read_text())
    assert run_settings(told) == asked
    assert {p.name for p in (folder / "checkpoints").iterdir()} == {
        "seed-0.safetensors",
        "seed-1.safetensors",
    }
    assert not list(folder.glob(".*"))


def test_a_run_is_named_by_all_that_its_result_depends_on(tmp_path: Path) -> None:
    from privfed.data.load import load

    asked = settings(tmp_path)
    source = load(asked.data)
    name = run_id(asked, source)

    assert name.startswith("fcf-")
    same: list[dict[str, Any]] = [
        {"machine": {"workers": 2}},
        {"out": "elsewhere"},
        {"checkpoint_every": 1},
    ]
    for changed in same:
        assert run_id(settings(tmp_path, **changed), source) == name
    others: list[dict[str, Any]] = [
        {"rounds": 4},
        {"seed": 1},
        {"method": "fcf:width=16,epochs=2"},
        {"defense": ["gaussian"]},
        {"protocol": {"every": 3}},
    ]
    for changed in others:
        assert run_id(settings(tmp_path, **changed), source) != name
    other = replace(source, world=replace(source.world, fingerprint="other"))
    assert run_id(asked, other) != name


def test_several_seeds_give_figures_over_seeds(tmp_path: Path) -> None:
    one = done(settings(tmp_path))
    two = done(settings(tmp_path, seeds=2))
    other = done(settings(tmp_path, seed=1))

    key = "utility.hr@10"
    assert one.figures[key].over == "clients"
    assert two.figures[key].over == "seeds"
    mean = (one.figures[key].value + other.figures[key].value) / 2
    assert two.figures[key].value == pytest.approx(mean)


def test_what_an_attack_is_granted_is_told(tmp_path: Path) -> None:
    means = done(settings(tmp_path)).adversaries

    assert "sees UploadsView" in means["sign_pc"]
    assert "is granted the items' popularity" in means["sign_pc"]
    assert means["support"] == "sees ItemsView"


def test_an_attack_that_cannot_run_is_in_the_result_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from privfed.attacks.items.sign_pc import SignPC
    from privfed.views import View

    class Unseen(View):
        """A view that no channel shows."""

    monkeypatch.setattr(SignPC, "sees", (Unseen,))
    result = done(settings(tmp_path))

    assert list(result.not_applicable) == ["sign_pc"]
    assert "needs Unseen" in result.not_applicable["sign_pc"]
    assert not any("sign_pc" in key for key in result.figures)


def test_training_that_diverges_is_one_line_and_exit_code_1(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = "run --method fedncf:width=16,learning_rate=1e30 --rounds 4 --quiet"

    assert main(words.split()) == 1

    told = capsys.readouterr().err
    assert len(told.strip().splitlines()) == 1
    assert "diverged" in told
    assert not list(tmp_path.glob("runs/*/result.json"))
