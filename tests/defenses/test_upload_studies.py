"""The studies of made-up items, compression and regularizers, on small worlds."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import privfed

ROOT = Path(privfed.__file__).parents[1]
if not (ROOT / "defenses" / "measuring.py").exists():
    pytest.skip("the studies are not shipped", allow_module_level=True)


def told(script: str, *words: str) -> dict[str, Any]:
    """What a study prints with --json, by heading and then by row."""
    path = ROOT / "defenses" / f"{script}.py"
    done = subprocess.run(
        [sys.executable, path, *words, "--data", "demo", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    if isinstance(found, list):
        return {row["defense"]: row for row in found}
    return {
        heading: {row["name"]: row["figures"] for row in rows}
        for heading, rows in found.items()
    }


@pytest.mark.slow
def test_imias_clients_leak_all_and_less_under_noise() -> None:
    rows = told("regularizer_study", "imia", "--clients", "3")

    assert rows["none"]["f1"] == 1.0
    assert rows["imia_ldp:variance=0.01"]["f1"] < 1.0
    assert rows["regularizer mu=1"]["recall"] <= rows["none"]["recall"]


@pytest.mark.slow
def test_pseudo_rows_by_dimension_stand_off_the_axis() -> None:
    [rows] = told("pseudo_items_study", "implicit", "--rounds", "2").values()

    def f1(name: str) -> float:
        return float(rows[name]["leakage.sign_pc.f1"]["value"])

    assert f1("none") > f1("300 rows, by dimension") > f1("300 rows")


@pytest.mark.slow
def test_compression_tells_bytes_of_every_row() -> None:
    [rows] = told("pseudo_items_study", "compression", "--rounds", "2").values()
    sizes = [figures["cost.bytes_up"]["value"] for figures in rows.values()]

    assert max(sizes) == rows["none"]["cost.bytes_up"]["value"]
    assert len(rows) == 10
