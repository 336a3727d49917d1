"""``privfed run``: options become settings, failures become exit codes."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from privfed.cli import main
from privfed.cli.options import layer
from privfed.cli.run import run
from privfed.config import run_settings
from privfed.defenses.dp import DP
from privfed.errors import DataMissing, MissingExtra, PrivfedError, SettingsError
from privfed.result import Figure
from tests.cli.experiments import Experiment, result

Capture = pytest.CaptureFixture[str]


def test_run_alone_is_a_complete_sentence(
    experiment: Experiment, capsys: Capture
) -> None:
    assert main(["run"]) == 0

    out, err = capsys.readouterr()
    assert experiment.asked == [(run_settings(), False)]
    assert "HR@10" in out
    assert "0.2500" in out
    assert "\x1b" not in out
    assert "run folder: runs/0a1b2c" in err


def test_every_option_reaches_its_setting(experiment: Experiment) -> None:
    words = """run --method fedmr:backbone=fcf --defense dp:epsilon=4 --defense gaussian
        --attack sign-pc --attack random-attack --malicious 0.1 --target head
        --targets 2 --no-baseline --data here.csv --format table --split ratio
        --features title=tfidf --features given --support 0.5 --query 0.1
        --rounds 7 --patience 3 --interactions-per-round 32
        --sampling uniform --clients-per-round 9 --rest --ranking full
        --negatives-eval 50 --at 3,7 --seed 5 --seeds 2 --device cpu --memory 3GiB
        --workers 1 --out there --checkpoint-every 4 --resume --quiet"""

    assert main(words.split()) == 0

    expected = run_settings(
        {
            "method": {"name": "fedmr", "backbone": "fcf"},
            "defense": [{"name": "dp", "epsilon": 4}, {"name": "gaussian"}],
            "attack": ["sign_pc", "random_attack"],
            "malicious": {
                "share": 0.1,
                "target": "head",
                "targets": 2,
                "baseline": False,
            },
            "data": {
                "data": "here.csv",
                "format": "table",
                "split": "ratio",
                "features": ["title=tfidf", "given"],
                "support": 0.5,
                "query": 0.1,
            },
            "sampling": {
                "kind": "uniform",
                "clients_per_round": 9,
                "interactions_per_round": 32,
                "rest": True,
            },
            "protocol": {"ranking": "full", "negatives": 50, "at": [3, 7]},
            "machine": {"device": "cpu", "memory": 3 * 2**30, "workers": 1},
            "rounds": 7,
            "patience": 3,
            "seed": 5,
            "seeds": 2,
            "checkpoint_every": 4,
            "out": "there",
        }
    )
    assert experiment.asked == [(expected, True)]


def test_option_over_environment_over_file_over_default(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("study.toml").write_text("rounds = 11\nseed = 12\nseeds = 13\n")
    monkeypatch.setenv("PRIVFED_SEED", "22")
    monkeypatch.setenv("PRIVFED_SEEDS", "23")

    assert main(["run", "study.toml", "--seeds", "33"]) == 0

    asked = experiment.settings
    assert (asked.rounds, asked.seed, asked.seeds) == (11, 22, 33)
    assert asked.checkpoint_every == 10


def test_the_environment_sets_parts_and_sections(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRIVFED_DEFENSE", "dp:epsilon=4 gaussian")
    monkeypatch.setenv("PRIVFED_CLIENTS_PER_ROUND", "6")
    monkeypatch.setenv("PRIVFED_REST", "1")
    monkeypatch.setenv("PRIVFED_DATASET", "ml-100k")
    monkeypatch.setenv("PRIVFED_DATA", "/folder/of/data")

    assert main(["run"]) == 0

    asked = experiment.settings
    assert [one.name for one in asked.defense] == ["dp", "gaussian"]
    assert asked.defense[0].part == DP(epsilon=4.0)
    assert (asked.sampling.clients_per_round, asked.sampling.rest) == (6, True)
    assert asked.data.data == "ml-100k"


def test_no_rest_on_the_command_line_wins_over_the_file(experiment: Experiment) -> None:
    Path("study.toml").write_text("[sampling]\nrest = true\n")

    assert main(["run", "study.toml", "--no-rest"]) == 0

    assert experiment.settings.sampling.rest is False


def test_attack_none_runs_no_attack(experiment: Experiment) -> None:
    assert main(["run", "--attack", "none"]) == 0

    assert experiment.settings.attack == ()


def test_json_is_alone_on_stdout(experiment: Experiment, capsys: Capture) -> None:
    experiment.answer = result(figures={"utility.hr@10": Figure(0.5, 0.4, 0.6)})

    assert main(["run", "--json"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == "privfed.result/1"
    assert told["figures"]["utility.hr@10"]["high"] == 0.6


def test_a_figure_that_is_no_number_is_a_failure(
    experiment: Experiment, capsys: Capture
) -> None:
    experiment.answer = result(figures={"utility.hr@10": Figure(float("nan"))})

    assert main(["run", "--json"]) == 1
    assert capsys.readouterr().out == ""


def test_quiet_says_no_progress(experiment: Experiment, capsys: Capture) -> None:
    experiment.answer = result(id="0a1b2c")
    main(["run"])
    loud = capsys.readouterr().err
    main(["run", "--quiet"])
    quiet = capsys.readouterr().err

    assert "2/2" in loud
    assert "HR@10 0.25" in loud
    assert quiet.splitlines() == ["run folder: runs/0a1b2c"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PrivfedError("it broke"), 1),
        (SettingsError("not so"), 2),
        (MissingExtra("flwr", "flower", "the bridge"), 3),
        (DataMissing("no such data"), 4),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("by zero"), 1),
    ],
)
def test_a_failure_is_one_line_and_its_exit_code(
    experiment: Experiment, capsys: Capture, error: BaseException, code: int
) -> None:
    experiment.answer = error

    assert main(["run", "--quiet"]) == code

    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert err.strip().startswith("privfed: ")
    assert str(error) in err
    assert "Traceback" not in err


def test_an_interrupted_run_tells_how_to_go_on(
    experiment: Experiment, capsys: Capture
) -> None:
    experiment.answer = KeyboardInterrupt()
    main(["run"])

    assert "--resume" in capsys.readouterr().err


def test_debug_shows_where(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRIVFED_DEBUG", "1")
    experiment.answer = SettingsError("not so")

    with pytest.raises(SettingsError, match="not so"):
        main(["run"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--defense", "dp:epsilom=1"], "did you mean 'epsilon'?"),
        (["--method", "fedmrr"], "did you mean 'fedmr'?"),
        (["--rounds", "many"], "rounds should be a valid integer"),
        (["--at", "ten"], "at should be a valid integer"),
        (["--memory", "much"], "'much' is no size"),
        (["--nonsense"], "No such option"),
        (["nowhere.toml"], "does not exist"),
    ],
)
def test_unusable_options_end_with_2_before_any_work(
    experiment: Experiment, capsys: Capture, words: list[str], told: str
) -> None:
    assert main(["run", *words]) == 2

    assert told in capsys.readouterr().err
    assert experiment.asked == []


def test_an_unknown_key_in_the_file_ends_with_2(
    experiment: Experiment, capsys: Capture
) -> None:
    Path("study.toml").write_text("[sampling]\nclients_pre_round = 3\n")

    assert main(["run", "study.toml"]) == 2
    assert experiment.asked == []
    assert (
        "sampling: no setting 'clients_pre_round'; did you mean 'clients_per_round'?"
        in capsys.readouterr().err
    )


def _options() -> list[click.Option]:
    return [one for one in run.params if isinstance(one, click.Option)]


TOLD = re.compile(r"\[default: (.*)\]$")


@pytest.mark.parametrize(
    "option", [o for o in _options() if TOLD.search(o.help or "")], ids=lambda o: o.name
)
def test_the_default_in_the_help_is_the_default(option: click.Option) -> None:
    told = TOLD.search(option.help or "")
    assert told
    word: Any = told[1]
    assert option.name
    if option.is_flag:
        word = f"--{word}" in option.opts
    elif option.multiple:
        word = tuple(word.split(", "))

    given = run_settings(layer({option.name: word}))

    assert replace(given) == run_settings()


def test_every_option_says_what_it_does() -> None:
    for option in _options():
        assert option.help, option.name
