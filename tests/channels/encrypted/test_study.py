"""The study's tables, on sizes that take a moment."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import privfed

STUDY = Path(privfed.__file__).parents[1] / "defenses" / "encryption_study.py"
if not STUDY.exists():
    pytest.skip("the studies are not shipped", allow_module_level=True)
SMALL = ("--clients", "12", "--items", "700", "--width", "8", "--numbers", "2")


def study(*given: str) -> dict[str, Any]:
    told = subprocess.run(
        [sys.executable, str(STUDY), *given, "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert told.returncode == 0, told.stderr
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def test_costs_are_told_for_every_scheme_and_key_holder() -> None:
    rows = {row["channel"]: row for row in study("costs", *SMALL)["costs"]}

    assert set(rows) == {
        "bfv, clients",
        "bfv, clients, resolution 1e-08",
        "bfv, authority",
        "bfv, authority, bound 16",
        "ckks, clients",
        "ckks, authority",
    }
    for row in rows.values():
        assert min(row["encrypt_ms"], row["add_ms"], row["decrypt_ms"]) > 0
        assert row["error"] < 1e-4
    for scheme in ("bfv", "ckks"):
        seeded, whole = (rows[f"{scheme}, {k}"] for k in ("clients", "authority"))
        assert 1.9 < whole["bytes_up"] / seeded["bytes_up"] < 2.1


@pytest.mark.slow
def test_paillier_takes_a_ciphertext_for_each_number() -> None:
    pytest.importorskip("phe", reason="the library phe is not installed")
    small, large = study("paillier", *SMALL)["paillier"]

    assert (small["expansion"], large["expansion"]) == (64, 128)
    assert large["encrypt_ms"] > small["encrypt_ms"] > 1000


@pytest.mark.slow
@pytest.mark.realdata
def test_fedmf_s_log_is_reproduced() -> None:
    """Losses and uploads of its result files; Paillier for one iteration."""
    pytest.importorskip("phe", reason="the library phe is not installed")
    folder = os.environ.get("PRIVFED_DATA")
    names = ("ml-latest-small", "ml-latest-small-2018")
    there = [Path(folder) / name for name in names] if folder else []
    ratings = next((path for path in there if path.exists()), None)
    if ratings is None:
        pytest.skip("PRIVFED_DATA names no folder with ml-latest-small")

    curves = study("fedmf", "--ratings", str(ratings), "--iterations", "1")["fedmf"]

    rows = {row["name"].partition(" (")[0]: row for row in curves}
    log = rows["log, part"]
    for name in ("this package, plain, part", "this package, he, full"):
        assert rows[name]["losses"] == pytest.approx(log["losses"], abs=1e-5)
        assert rows[name]["rmse"] == pytest.approx(log["rmse"], abs=1e-4)
    paillier = rows["Paillier 1024, part"]
    assert paillier["losses"][0] == pytest.approx(log["losses"][0], abs=1e-5)
    assert paillier["megabytes"] == pytest.approx(log["megabytes"], rel=0.05)
    turn = rows["this package, in turn"]
    assert turn["losses"][3] == pytest.approx(0.7326559, abs=1e-5)
    assert turn["rmse"] == pytest.approx(1.3969165, abs=1e-4)
