"""What malicious clients changed, against what is worked out by hand."""

from pathlib import Path
from statistics import median
from typing import Any

import pytest

from privfed import hijack
from privfed.channels.plain import Plain
from privfed.config import run_settings
from privfed.experiment import execute
from privfed.report.table import render
from privfed.result import Result
from privfed.rounds import Setup, run
from tests.test_poisoning import FEW, METHOD, ONE, WORLD, Loud, attacked

SMALL = {
    "method": "bpr:width=8",
    "data": {"data": "demo", "features": []},
    "protocol": {"negatives": 20, "every": 2},
    "machine": {"workers": 1},
    "rounds": 4,
    "attack": ["random_attack:positives=5"],
}


def result(tmp_path: Path, **changes: Any) -> Result:
    asked = run_settings(SMALL, {"out": str(tmp_path)}, changes)
    return execute(asked, False, lambda *_: None)


def test_a_drop_is_against_the_run_without_malicious_clients() -> None:
    bad, clean = attacked(Loud(length=1e3)), attacked(Loud(), 0.0)

    found = hijack.figures([bad], [clean])
    told, before = (one.state.log[-1] for one in (bad, clean))
    drop = before["utility.hr@10"] - told["utility.hr@10"]
    assert found["hijack.hr@10_drop"].value == pytest.approx(drop)
    shift = told["hijack.standing"] - before["hijack.standing"]
    assert found["hijack.prediction_shift"].value == pytest.approx(shift)
    assert found["hijack.er@10"].value == told["hijack.er@10"]
    assert found["hijack.malicious_rows"].value == 2


def test_of_several_seeds_the_median_and_the_range_are_told() -> None:
    outcomes = [attacked(Loud(length=1e3), seed=seed) for seed in range(3)]

    found = hijack.figures(outcomes, [])["hijack.target_ndcg@10"]
    each = [one.state.log[-1]["hijack.target_ndcg@10"] for one in outcomes]
    assert (found.value, found.low, found.high) == pytest.approx(
        (median(each), min(each), max(each))
    )
    assert found.over == "range"


def test_without_a_poisoner_there_is_nothing_to_tell() -> None:
    honest = run(Setup(WORLD, METHOD, Plain(), protocol=FEW, rounds=1), ONE)

    assert hijack.figures([honest], []) == {}
    assert "hijack.er@10" not in honest.state.log[-1]


def test_a_run_tells_who_was_malicious_and_what_they_were_after(
    tmp_path: Path,
) -> None:
    found = result(tmp_path)

    told = found.adversaries["random_attack"]
    assert "owns 15 clients beside 300 honest ones" in told
    assert "promotes item" in told
    assert found.attacks == ("random_attack:positives=5",)
    assert "hijack.hr@10_drop" in found.figures
    assert found.references["hijack.er@10"].keys() == {"nobody"}
    assert any("--seeds 5" in note for note in found.notes)
    assert render(found)


def test_who_wants_no_baseline_gets_no_drop(tmp_path: Path) -> None:
    found = result(tmp_path, malicious={"baseline": False})

    assert "hijack.er@10" in found.figures
    assert "hijack.hr@10_drop" not in found.figures
    assert "hijack.er@10" not in found.references


def test_a_run_whose_server_cannot_look_says_that_nobody_checks(
    tmp_path: Path,
) -> None:
    asked = {"defense": ["user_dp", "secagg"]}
    assert any(
        "no server can check" in note for note in result(tmp_path, **asked).notes
    )
