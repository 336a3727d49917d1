"""Figures in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privfed.report.words import duration, metric, number, size, upward


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1_234_567, "1.18 MiB"),
        (5 * 2**30, "5 GiB"),
        (2**43, "8 TiB"),
        (2**60, "1.05e+06 TiB"),
    ],
)
def test_sizes(count: float, words: str) -> None:
    assert size(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (2.5e-6, "2.5 us"),
        (0.0023, "2.3 ms"),
        (3.21, "3.21 s"),
        (7200, "120 min"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("utility.hr@10", "HR@10"),
        ("hijack.hr@10_drop", "HR@10 drop"),
        ("leakage.sign_pc.f1", "F1"),
        ("leakage.sign_pc.f1_advantage", "F1 advantage"),
        ("fairness.ndcg_std", "NDCG std"),
        ("cost.bytes_up", "upload/client/round"),
        ("mine", "mine"),
    ],
)
def test_names(key: str, words: str) -> None:
    assert metric(key) == words


def test_the_name_decides_the_unit() -> None:
    assert number("cost.bytes_up", 2048) == "2 KiB"
    assert number("cost.client_seconds", 2) == "2 s"
    assert number("utility.hr@10", 0.25) == "0.2500"


@given(st.floats(1e-6, 1e6))
def test_an_epsilon_is_never_told_too_small(value: float) -> None:
    told = float(upward(value))

    assert value <= told <= value * 1.011
