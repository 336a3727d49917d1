"""The table shows what a result holds: all of it, and nothing else."""

import io
from typing import Any

import pytest
from rich.console import Console

from privfed.accounting.guarantee import Guarantee
from privfed.report.table import render
from privfed.result import Figure, Result

DP = Guarantee(
    private=True,
    epsilon=4.0012,
    delta=1e-5,
    unit="interaction",
    relation="add or remove one interaction of one user",
    trust="local: the server is untrusted",
    accountant="PLD",
    covers="all uploads of a client",
    caveats=("a user's whole history is not the unit",),
)
NOISE = Guarantee(
    private=False,
    epsilon=None,
    delta=None,
    unit="none",
    relation="none",
    trust="the server sees each noised upload",
    accountant="none",
    covers="every number",
)


def bare(**changes: Any) -> Result:
    """A result that measured nothing."""
    given: dict[str, Any] = {
        "id": "0a1b2c",
        "method": "fedavg",
        "defenses": (),
        "attacks": (),
        "data": {},
        "protocol": "full ranking",
        "seeds": (0,),
        "figures": {},
    }
    return Result(**(given | changes))


FULL = bare(
    method="fedmr:backbone=fcf",
    defenses=("dp:epsilon=4", "gaussian"),
    data={"name": "demo", "clients": 943, "items": 1349, "interactions": 99287},
    seeds=(0, 1),
    figures={
        "cost.bytes_up": Figure(1_234_567),
        "leakage.sign_pc.f1": Figure(0.9, 0.85, 0.95, "clients"),
        "leakage.sign_pc.auc": Figure(0.95),
        "leakage.support.f1": Figure(0.3333),
        "utility.hr@10": Figure(0.6123, 0.601, 0.624, "seeds"),
        "mine.figure": Figure(7),
    },
    references={
        "utility.hr@10": {"popularity": 0.412, "chance": 0.1},
        "leakage.sign_pc.f1": {"prior": 0.05},
    },
    privacy={"dp": DP, "gaussian": NOISE},
    not_applicable={"gradients": "needs UploadsView; this channel shows TotalView"},
    notes=("34 % of rows are undated",),
)


def text(result: Result, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(render(result))
    return out.getvalue()


def line(told: str, *words: str) -> str:
    """The one line that holds all words."""
    found = [one for one in told.splitlines() if all(word in one for word in words)]
    assert len(found) == 1, (words, found)
    return found[0]


def test_a_figure_stands_beside_its_interval_and_reference() -> None:
    row = line(text(FULL), "HR@10")

    assert row.split() == [
        *("HR@10", "0.6123", "0.6010", "to", "0.6240,", "seeds"),
        *("popularity", "0.4120"),
    ]


def test_sections_come_in_their_order_whatever_the_order_of_figures() -> None:
    told = [row.strip() for row in text(FULL).splitlines()]
    places = [
        told.index(word)
        for word in ("utility", "leakage", "cost", "mine", "privacy", "notes")
    ]

    assert places == sorted(places)


def test_every_attack_has_its_own_rows() -> None:
    rows = [row.strip() for row in text(FULL).splitlines()]
    first, second = rows.index("sign_pc"), rows.index("support")

    assert rows[first + 1].split()[-2:] == ["prior", "0.0500"]
    assert rows[first + 2].startswith("AUC")
    assert rows[second + 1].split() == ["F1", "0.3333"]


def test_attacks_are_told_apart_though_their_figures_are_mixed() -> None:
    figures = {
        "leakage.one.f1": Figure(0.1),
        "leakage.two.f1": Figure(0.2),
        "leakage.one.auc": Figure(0.3),
    }
    rows = [row.split() for row in text(bare(figures=figures)).splitlines()]

    assert rows.index(["one"]) + 2 == rows.index(["AUC", "0.3000"])
    assert rows.count(["one"]) == 1


def test_a_guarantee_is_told_with_its_terms_and_limits() -> None:
    told = " ".join(text(FULL).split())

    assert "epsilon 4.01, delta 1e-05 for each interaction" in told
    assert "add or remove one interaction of one user" in told
    assert "local: the server is untrusted" in told
    assert "a user's whole history is not the unit" in told


def test_noise_that_promises_nothing_is_called_not_dp() -> None:
    assert "NOT DP" in line(text(FULL), "gaussian", "no epsilon")


def test_a_run_without_a_defense_is_called_not_dp() -> None:
    assert "NOT DP" in text(bare())


def test_an_attack_that_cannot_run_is_told_with_its_reason() -> None:
    assert "needs UploadsView" in line(text(FULL), "gradients")


def test_what_was_not_measured_is_not_shown() -> None:
    told = text(bare())

    for word in ("utility", "leakage", "cost", "not applicable", "notes"):
        assert word not in told


@pytest.mark.parametrize("width", [60, 80, 120])
def test_nothing_is_cut_and_no_line_is_too_long(width: int) -> None:
    told = text(FULL, width)

    assert "…" not in told
    assert max(map(len, told.splitlines())) <= width
    assert "34 % of rows are undated" in told


def test_words_in_brackets_are_no_markup() -> None:
    odd = bare(method="[bold]x[/]", notes=("see [1] and [/]",))

    assert "[bold]x[/]" in text(odd)
    assert "see [1] and [/]" in text(odd)


def test_no_color_codes_where_the_output_is_no_terminal() -> None:
    assert "\x1b" not in text(FULL)


def test_a_terminal_gets_weight_on_the_headings() -> None:
    out = io.StringIO()
    Console(file=out, width=80, force_terminal=True).print(render(FULL))

    assert "\x1b[1m" in out.getvalue()
