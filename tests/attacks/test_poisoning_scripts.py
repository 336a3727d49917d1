"""The matrix of poisoning and its picture: what is run, kept, told and drawn."""

import importlib.util
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

import privfed

ROOT = Path(privfed.__file__).parents[1]
if not (ROOT / "attacks" / "poisoning_matrix.py").exists():
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


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script("poisoned_cells", monkeypatch)


def cell(cells: ModuleType, **more: Any) -> Any:
    """One short run on the demo."""
    one = cells.Cell("demo", "bpr", "plain", "random_attack", 0.05, "tail", 2, 100, 0)
    return replace(one, **more)


def test_a_run_ends_with_its_figures(cells: ModuleType) -> None:
    found = cells._found(cell(cells, defense="krum:malicious=0.1"))

    assert 0 <= found.er <= 1
    assert 0 < found.hr < 1
    # 15 clients, each once an epoch of 4 rounds
    assert found.malicious_rows == pytest.approx(15 / 4)
    assert 0 < found.precision < found.recall <= 1
    assert not found.reason


def test_without_malicious_clients_nothing_is_found_of_them(cells: ModuleType) -> None:
    found = cells._found(cell(cells, attack=cells.NOBODY))

    assert found.malicious_rows == 0
    assert found.precision is None
    assert found.hr is not None


def test_a_share_below_one_client_is_one(cells: ModuleType) -> None:
    setup = cells._setup(cell(cells, share=1e-6))

    assert setup.party.count(setup.world) == 1
    assert setup.rounds == 2 * 4  # 301 clients in rounds of 100
    assert cells._setup(cell(cells, cohort=0)).rounds == 2


def test_a_rating_method_is_judged_by_its_error(cells: ModuleType) -> None:
    found = cells._found(cell(cells, method="fedmf", attack="average_attack"))

    assert 0 <= found.er <= 1
    assert 0 < found.rmse < 2
    assert found.hr is None


def test_what_cannot_be_run_says_why(cells: ModuleType) -> None:
    found = cells._found(cell(cells, target="999"))

    assert "999" in found.reason
    assert found.er is None


def test_a_finished_run_is_kept_and_a_cut_line_is_not(
    cells: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "runs.jsonl"
    one, found = cell(cells), cells.Found(0.25, 0.5, 3.0, 1.0)
    line = json.dumps({"cell": asdict(one), "found": asdict(found)})
    path.write_text(f'{line}\n{{"cell": {{"data": "de')

    assert cells.kept(path) == {one: found}
    told: list[object] = []
    assert cells.made([one], path, 1, lambda *all_: told.append(all_)) == {one: found}
    assert not told


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.5, None, 0.1, 0.9], "0.500 (0.10-0.90)"),
        ([0.25, 0.25], "0.250"),
        ([0.0, 0.5], "0.250 (0.00-0.50)"),
    ],
)
def test_a_spread_is_the_median_and_the_range(
    cells: ModuleType, values: list[float | None], words: str
) -> None:
    assert str(cells.Spread.of(values)) == words
    assert cells.Spread.of([None]) is None


def test_the_matrix_tells_the_figures_of_its_runs(
    cells: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = script("poisoning_matrix", monkeypatch)
    path = tmp_path / "runs.jsonl"
    lines = []
    for k, attack in enumerate((cells.NOBODY, "a_ra", "segment")):
        for seed in range(2):
            row = matrix.DEFENSES["krum"]
            one = cell(cells, method=row.method, defense=row.defense, attack=attack)
            one = replace(one, epochs=row.epochs, cohort=row.cohort, seed=seed)
            hit = cells.Found(0.1 * k + 0.01 * seed, 0.5, recall=0.9, precision=0.2)
            lines.append(json.dumps({"cell": asdict(one), "found": asdict(hit)}))
    path.write_text("\n".join(lines) + "\n")
    words = "--data demo --defense krum --attack a_ra --attack segment --seeds 2 --out"

    told = CliRunner().invoke(matrix.main, [*words.split(), str(path)])

    assert told.exit_code == 0, told.output
    assert "| a_ra    | 0.105 (0.10-0.11) |" in told.stdout
    assert "| segment | 0.205 (0.20-0.21) |" in told.stdout
    assert "Malicious votes not kept" in told.stdout
    assert path.read_text().count("\n") == len(lines)


def test_an_expectation_that_does_not_hold_is_told(
    cells: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = script("poisoning_matrix", monkeypatch)
    path = tmp_path / "runs.jsonl"
    row = matrix.DEFENSES["median"]
    for attack, hit in ((cells.NOBODY, 0.0), ("pieck_uea", 0.2)):
        one = cell(cells, method=row.method, defense=row.defense, attack=attack)
        one = replace(one, epochs=row.epochs, cohort=row.cohort)
        line = {"cell": asdict(one), "found": asdict(cells.Found(hit, 0.5))}
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
    words = "--data demo --defense median --attack pieck_uea --seeds 1 --out"

    told = CliRunner().invoke(matrix.main, [*words.split(), str(path)])

    assert told.exit_code == 1
    assert "DOES NOT HOLD" in told.stdout


@pytest.mark.slow
def test_every_row_of_the_matrix_is_a_run_that_fits(
    cells: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = script("poisoning_matrix", monkeypatch)
    for attack in matrix.ATTACKS:
        setup = cells._setup(cell(cells, attack=attack))
        assert setup.party.poisoner.aim == "promote"
    for row in matrix.DEFENSES.values():
        more = {"epochs": 1, "cohort": row.cohort, "attack": "explicit_boosting"}
        one = cell(cells, method=row.method, defense=row.defense, **more)
        found = cells._found(one)
        assert not found.reason, row
        assert found.er is not None


@pytest.mark.slow
def test_the_picture_is_drawn_of_runs_that_it_makes(
    cells: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    script("poisoning_matrix", monkeypatch)
    picture = script("poisoning_picture", monkeypatch)
    short = replace(picture.DEFENSES["none"], epochs=1)
    quick = {"none": short, "norm_bound": replace(short, defense="norm_bound")}
    monkeypatch.setattr(picture, "DEFENSES", quick)
    monkeypatch.setattr(picture, "SHARES", (0.001, 0.1))
    words = "--data demo --attack a_ra --seeds 2 --jobs 1"
    files = ["--runs", str(tmp_path / "runs.jsonl"), "--out", str(tmp_path / "p.png")]

    told = CliRunner().invoke(picture.main, [*words.split(), *files])

    assert told.exit_code == 0, told.output
    assert told.stdout.count("| a_ra ") == 2
    assert "</svg>" in (tmp_path / "p.svg").read_text()
    assert (tmp_path / "p.png").stat().st_size > 10_000
    assert len(cells.kept(tmp_path / "runs.jsonl")) == 2 * 2 * 2


def test_profiles_against_ratings_are_told_by_class_of_targets(
    cells: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shilling = script("shilling", monkeypatch)
    path = tmp_path / "runs.jsonl"
    lines = []
    for defense in shilling.DEFENSES.values():
        for attack in (cells.NOBODY, *shilling.PROFILES):
            one = cell(cells, method="fedmf", attack=attack, defense=defense)
            one = replace(one, target="head", epochs=30, cohort=0)
            hit = cells.Found(0.75, honest_rows=2.0, malicious_rows=15.0, rmse=0.9)
            lines.append(json.dumps({"cell": asdict(one), "found": asdict(hit)}))
    path.write_text("\n".join(lines) + "\n")
    words = "--data demo --target head --seeds 1 --out"

    told = CliRunner().invoke(shilling.main, [*words.split(), str(path)])

    assert told.exit_code == 0, told.output
    assert told.stdout.count("| segment ") == 4
    assert "0.750" in told.stdout
    assert "15.000" in told.stdout
    assert "head" in told.stdout
    assert "tail" not in told.stdout
