"""``privfed data``: figures to stdout, words to stderr, nothing heavy to list."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from privfed.cli.data import data
from privfed.data.datasets import DATASETS
from privfed.data.download import SOURCE
from privfed.data.formats import FORMATS
from privfed.data.interactions import Interactions
from privfed.data.portrait import day, gini, portrait
from privfed.errors import DataMissing


def output(*words: str) -> str:
    result = CliRunner().invoke(data, words, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_list_names_every_set_and_format(tmp_path: Path) -> None:
    text = output("list", "--cache", str(tmp_path))
    facts = json.loads(output("list", "--json", "--cache", str(tmp_path)))

    assert all(name in text for name in (*DATASETS, *FORMATS))
    assert set(facts["datasets"]) == set(DATASETS)
    assert not facts["datasets"]["ml-100k"]["here"]
    assert facts["schema"] == 1


def test_get_prints_the_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "ml-1m").mkdir()
    (tmp_path / "ml-1m" / SOURCE).write_text("ml-1m from a friend\nsome terms\n")

    result = CliRunner().invoke(data, ["get", "ml-1m", "--cache", str(tmp_path)])

    assert result.stdout == f"{tmp_path / 'ml-1m'}\n"
    assert "some terms" in result.stderr


def test_describe_tells_sizes_and_contents(tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    file.write_text("user,item,rating,time\na,x,1,86400000\na,y,5,\nb,x,3,172800000\n")

    text = output("describe", str(file))
    facts = json.loads(output("describe", str(file), "--json"))

    assert "1 to 5 by 1, mean 3.00" in text
    assert "1972-09-27 to 1975-06-24; 1 rows undated" in text
    assert (facts["users"], facts["items"], facts["interactions"]) == (2, 2, 3)
    assert facts["density"] == 0.75
    assert facts["per_user"] == {"min": 1, "median": 1.5, "max": 2}
    assert facts["gini"] == pytest.approx(1 / 6)
    assert facts["parts"] is None


def test_describe_takes_names_of_columns(tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    file.write_text("who,item\na,x\n")

    assert "users         1" in output(
        "describe", str(file), "--format", "table:user=who"
    )


def test_an_absent_set_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PRIVFED_DATA", raising=False)

    with pytest.raises(DataMissing, match="run: privfed data get ml-20m"):
        output("describe", "ml-20m", "--cache", str(tmp_path))


def test_listing_loads_nothing_heavy() -> None:
    code = (
        "import sys; from privfed.cli.data import data;"
        "data(['list'], standalone_mode=False);"
        "assert not {'torch', 'pandas', 'numpy'} & sys.modules.keys(), 'heavy'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("amounts", "expected"), [((1, 1, 1, 1), 0.0), ((0, 0, 0, 1), 0.75), ((1, 3), 0.25)]
)
def test_gini_of_known_amounts(amounts: tuple[int, ...], expected: float) -> None:
    assert gini(torch.tensor(amounts).double()) == pytest.approx(expected)


def test_days_of_seconds_and_of_milliseconds() -> None:
    assert day(881250949) == "1997-12-04"
    assert day(1516237335600) == "2018-01-18"
    assert day(7) is None


def test_portrait_is_json_for_bare_data() -> None:
    bare = Interactions("bare", 1, 1, torch.tensor([0]), torch.tensor([0]))

    facts = portrait(bare)

    assert json.loads(json.dumps(facts)) == facts
    assert facts["ratings"] is facts["time"] is facts["parts"] is None
