"""The reproduction of IMIA, and the comparison of attacks, on small worlds."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import privfed

ROOT = Path(privfed.__file__).parents[1]
if not (ROOT / "attacks" / "imia.py").exists():
    pytest.skip("the scripts are not shipped", allow_module_level=True)


def told(script: str, *words: str) -> Any:
    """What a script prints with --json; claims may fail on a made-up world."""
    path = ROOT / "attacks" / f"{script}.py"
    done = subprocess.run(
        [sys.executable, path, *words, "--data", "demo", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_imia_leaves_sign_pc_what_it_misses() -> None:
    report = told("imia", "--clients", "3", "--untrained")
    f1 = {(row["setting"], row["attack"]): row["f1"] for row in report["found"]}
    apart = [row for row in report["imia"] if "never errs" in row["setting"]]

    assert f1["no defense", "sign_pc"] > 0.95 > 0.5 > f1["no defense", "IMIA"]
    assert apart[0]["f1"] < 0.5 < apart[-1]["f1"]
    claims = {claim["name"]: claim["holds"] for claim in report["claims"]}
    assert claims["no defense: F1 that IMIA leaves to sign_pc"]


@pytest.mark.slow
def test_attacks_are_compared_on_the_same_candidates() -> None:
    words = ["--method", "pfedrec", "--defense", "none"]
    for name in ("support", "sign_pc", "likelihood_ratio"):
        words += ["--attack", name]
    rows = {row["attack"]: row for row in told("membership", *words)}

    assert rows["support"]["auc"] == 0.5
    assert rows["popularity"]["auc"] < 0.8
    assert rows["sign_pc"]["auc"] > 0.99
    assert rows["likelihood_ratio"]["f1"] > 0.99
    assert {row["clients"] for row in rows.values()} == {300}
