"""The studies of noise on KU and of epsilon against utility and leakage."""

import importlib.util
import json
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

import privfed
from privfed.choices import choose

ROOT = Path(privfed.__file__).parents[1]
if not (ROOT / "defenses" / "tradeoff.py").exists():
    pytest.skip("the studies are not shipped", allow_module_level=True)


def script(name: str) -> ModuleType:
    """A script as a module, so that what it calls can be replaced."""
    path = ROOT / "defenses" / f"{name}.py"
    if str(path.parent) not in sys.path:  # where Python looks first when it runs one
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(f"study_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def told(module: ModuleType, *words: str) -> list[dict[str, Any]]:
    found = CliRunner().invoke(module.main, words, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    cells: list[dict[str, Any]] = json.loads(found.stdout)
    return cells


def test_the_noise_table_has_the_settings_of_the_table_without_noise() -> None:
    study = script("noise_ku")
    others = runpy.run_path(str(ROOT / "benchmarks" / "fedmr_ku.py"))["BACKBONES"]

    for mine, other in zip(study.BACKBONES, others, strict=True):
        assert mine.name == other.name
        for protocol in ("published", "clean"):
            spec, given = getattr(mine, protocol), getattr(other, protocol)[1]
            assert choose("method", spec).part == choose("method", given).part
    for spec in study.READINGS.values():
        assert choose("defense", spec).part.variance == 0.1


@pytest.mark.slow
def test_the_noise_table_compares_each_reading_with_no_noise(tmp_path: Path) -> None:
    words = "--data demo --protocol clean --backbone FedNCF --rounds 1 --json --out"

    rows = told(script("noise_ku"), *words.split(), str(tmp_path))

    readings = ["none", *(r for r in script("noise_ku").READINGS)]
    assert [row["reading"] for row in rows] == readings
    assert rows[0]["value"] is not None
    assert rows[0]["paper"] == [0.1961, 0.0609]
    assert rows[1]["paper"] == [0.168, 0.042]


WORDS = ("--method=bpr:width=4", "--rounds=2", "--epsilon=8", "--epsilon=inf", "--json")


def test_the_tradeoff_has_a_cell_for_every_unit_and_epsilon(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    study, out = script("tradeoff"), tmp_path / "picture.png"

    cells = told(study, *WORDS, f"--cells={tmp_path}/cells", "--out", str(out))

    units = [unit.name for unit in study.UNITS]
    expected = [("none", "none")] + [(u, e) for u in units for e in ("8", "inf")]
    assert [(cell["unit"], cell["epsilon"]) for cell in cells] == expected
    for cell in cells:
        assert not cell["failure"]
        assert {"utility.hr@10", "leakage.sign_pc.f1"} <= cell["figures"].keys()
        if cell["epsilon"] == "8":
            assert 7.9 < cell["spent"] <= 8.0
        else:  # nothing is promised where nothing is noised
            assert cell["spent"] is None
    f1 = [cell["figures"]["leakage.sign_pc.f1"]["value"] for cell in cells]
    assert min(f1[0], f1[3]) > 0.95  # without a defense, and before a trusted server
    assert max(f1[1], f1[5]) < 0.5  # each device's own noise
    assert out.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in out.with_suffix(".svg").read_text()


def test_a_finished_cell_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = script("tradeoff")
    once = told(study, *WORDS, f"--cells={tmp_path}")
    gone = next(tmp_path.glob("interaction-dp-8.json"))
    gone.unlink()
    runs: list[object] = []
    execute = study.execute

    def counted(*given: Any) -> Any:
        runs.append(given)
        return execute(*given)

    monkeypatch.setattr(study, "execute", counted)
    twice = told(study, *WORDS, f"--cells={tmp_path}")

    assert len(runs) == 1
    assert [c["settings"] for c in once] == [c["settings"] for c in twice]
    other = told(study, *WORDS, f"--cells={tmp_path}", "--seed", "1")
    assert len(runs) == 1 + len(other)  # other settings are other cells
