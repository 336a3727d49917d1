"""The leakage matrix, and the verdicts of reproductions."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

import privfed

ROOT = Path(privfed.__file__).parents[1]
if not (ROOT / "attacks" / "matrix.py").exists():
    pytest.skip("the scripts are not shipped", allow_module_level=True)


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script as a module, found by the processes that it starts too."""
    monkeypatch.syspath_prepend(str(ROOT / "attacks"))
    spec = importlib.util.spec_from_file_location(name, ROOT / "attacks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def test_the_matrix_tells_what_leaks_and_what_cannot_be_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = script("matrix", monkeypatch)
    words = "--method pfedrec --defense none --defense secagg --defense pseudo "
    words += "--attack support --attack rating_grid --cohort 40 --rounds 1 --jobs 1"
    asked = [*words.split(), "--out", str(tmp_path)]

    found = CliRunner().invoke(matrix.main, [*asked, "--json"], catch_exceptions=False)
    cells: list[dict[str, Any]] = json.loads(found.stdout)
    told = {(cell["defense"], cell["attack"]): cell for cell in cells}

    assert told["none", "support"]["metric"] == "f1"
    assert told["none", "support"]["advantage"]["low"] > 0
    assert "ItemsView" in told["secagg", "support"]["reason"]
    assert "rating" in told["none", "rating_grid"]["reason"]
    assert "pseudo" in told["pseudo", ""]["reason"]
    results = {path: path.read_text() for path in tmp_path.glob("*/result.json")}
    assert len(results) == 2

    again = CliRunner().invoke(matrix.main, asked, catch_exceptions=False)

    assert "support: F1" in again.stdout
    assert "x: " in again.stdout
    assert {path: path.read_text() for path in results} == results  # not made again


@pytest.mark.parametrize(
    ("rule", "ours", "holds"),
    [
        ("about", 0.95, True),
        ("about", 0.7, False),
        ("at least", 2.0, True),
        ("at least", 0.7, False),
        ("at most", 0.2, True),
        ("at most", 1.2, False),
        ("about", float("nan"), False),
        ("at most", float("nan"), False),
    ],
)
def test_a_claim_holds_within_its_tolerance(
    rule: str, ours: float, holds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = script("claims", monkeypatch)

    assert claims.Claim("it", 1.0, ours, 0.1, "a paper", rule).holds is holds


def test_a_claim_that_does_not_hold_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    claims = script("claims", monkeypatch)
    good = claims.Claim("good", 1.0, 1.0, 0.1, "a paper")
    bad = claims.Claim("bad", 1.0, 2.0, 0.1, "a paper")

    claims.tell([good])
    with pytest.raises(SystemExit) as left:
        claims.tell([good, bad])

    assert left.value.code == 1
    assert "DOES NOT HOLD" in capsys.readouterr().out
