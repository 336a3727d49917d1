"""``privfed list``: what there is, in words and as JSON."""

import json

import pytest

from privfed.built_in import BUILT_IN, KINDS, Entry
from privfed.cli import main

Capture = pytest.CaptureFixture[str]


def test_list_names_every_part(capsys: Capture) -> None:
    assert main(["list"]) == 0

    told = capsys.readouterr().out
    for kind in KINDS:
        assert f"{kind}s" in told
        for name in BUILT_IN[kind]:
            assert name in told


@pytest.mark.parametrize("word", ["attack", "attacks"])
def test_list_of_a_kind_holds_that_kind_only(capsys: Capture, word: str) -> None:
    assert main(["list", word, "--json"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert list(told) == ["attacks"]
    helps = {name: said["help"] for name, said in told["attacks"].items()}
    assert helps == {n: e.help for n, e in BUILT_IN["attack"].items()}


def test_all_that_defense_takes_is_listed_with_the_defenses(capsys: Capture) -> None:
    main(["list", "defenses", "--json"])
    told = json.loads(capsys.readouterr().out)
    main(["list", "defenses"])
    words = capsys.readouterr().out

    assert told["defenses"].keys() == BUILT_IN["defense"].keys()
    assert told["channels"].keys() == BUILT_IN["channel"].keys()
    for said in [*told["defenses"].values(), *told["channels"].values()]:
        assert {"trust", "hides", "does_not_hide", "cost", "paper"} <= said.keys()
    for title in ("guarantee for", "trusted", "does not hide", "cost"):
        assert title in words


def test_methods_say_who_sees_what(capsys: Capture) -> None:
    main(["list", "methods"])
    words = capsys.readouterr().out
    main(["list", "methods", "--json"])
    methods = json.loads(capsys.readouterr().out)["methods"]

    for word in ("task", "stays on the device", "uploads", "server needs", "paper"):
        assert words.count(f"  {word}  ") == len(methods)
    for said in methods.values():
        assert {"task", "keeps", "sends", "needs", "paper", "help"} == set(said)


def test_list_of_a_part_shows_its_settings(capsys: Capture) -> None:
    assert main(["list", "dp"]) == 0

    told = capsys.readouterr().out
    rows = [line.split() for line in told.splitlines()]
    assert "does not hide" in told
    assert ["delta", "1e-05", "number"] in rows
    assert ["steps", "1", "whole", "number"] in rows
    assert ["epsilon", "none", "number", "|", "none"] in rows
    assert "plan" not in [row[0] for row in rows if row]


def test_yes_and_no_are_shown_as_they_are_written(capsys: Capture) -> None:
    main(["list", "fedmr"])

    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["dropout", "true", "true", "|", "false"] in rows


def test_list_of_a_part_as_json_has_defaults_with_its_preset(capsys: Capture) -> None:
    assert main(["list", "fedmr-release", "--json"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert told["name"] == "fedmr_release"
    assert told["settings"]["epochs"] == {"default": 5, "type": "whole number"}
    assert told["settings"]["fusion"]["type"] == "mix | sum | mlp | gate"


def test_a_part_without_settings_is_told_too(capsys: Capture) -> None:
    assert main(["list", "support"]) == 0
    assert "attack support" in capsys.readouterr().out


def test_an_unknown_word_is_told_the_nearest(capsys: Capture) -> None:
    assert main(["list", "defences"]) == 2
    assert "did you mean 'defenses'?" in capsys.readouterr().err


def test_words_in_brackets_are_no_markup(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = Entry("privfed.attacks.items.support:Support", "see [bold] and [/]")
    monkeypatch.setitem(BUILT_IN["attack"], "odd", odd)

    assert main(["list"]) == 0
    assert main(["list", "odd"]) == 0
    assert capsys.readouterr().out.count("see [bold] and [/]") == 2
