"""The reproduction of FedRecAttack: its claims, and the draws that it replays."""

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from click.testing import CliRunner
from torch import Generator

import privfed
from privfed.data.cohort import cohort_of
from privfed.data.world import Ragged
from privfed.seeds import Stream
from tests.worlds import lay, world

SCRIPT = Path(privfed.__file__).parents[1] / "attacks" / "fedrecattack.py"
if not SCRIPT.exists():
    pytest.skip("the scripts are not shipped", allow_module_level=True)
USERS, ITEMS = 40, 130  # so many that 3 % are somebody


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("fedrecattack", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fedrecattack", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Lists in the repository's format."""
    rng = Generator().manual_seed(0)
    own = [torch.randperm(ITEMS, generator=rng)[:12].tolist() for _ in range(USERS)]
    own[0][0] = ITEMS - 1
    parts = {"train": slice(1, None), "test": slice(0, 1), "train.part-1%": slice(1, 2)}
    for name, part in parts.items():
        lines = [f"{u} {' '.join(map(str, one[part]))}" for u, one in enumerate(own)]
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_runs_become_claims(script: ModuleType, folder: Path) -> None:
    words = ["--data", str(folder), "--epochs", "2", "--seeds", "1", "--json"]
    for part in ("plain", "attack", "fewer", "profiles"):
        words += ["--only", part]

    done = CliRunner().invoke(script.main, words)

    assert done.exit_code in (0, 1), done.exception
    claims = {claim["name"]: claim for claim in json.loads(done.stdout)}
    assert claims["5 %: ER@10 in most lists"]["published"] == 0.93
    assert all(
        0 <= c["ours"] <= 1 for c in claims.values() if "change" not in c["name"]
    )
    assert "rows a round" in done.stderr


def test_a_trace_of_other_data_is_refused(script: ModuleType, folder: Path) -> None:
    words = ["--data", str(folder), "--only", "trace"]
    done = CliRunner().invoke(script.main, words)
    assert done.exit_code == 2
    assert "MovieLens-100K" in done.stderr


def test_a_missing_folder_is_said_in_a_line(script: ModuleType) -> None:
    done = CliRunner().invoke(script.main, ["--data", "no/such/folder"])
    assert done.exit_code == 2
    assert "no/such/folder" in done.stderr


def test_given_negatives_are_handed_out_whoever_is_in_the_shard(
    script: ModuleType,
) -> None:
    lists = [[1, 2], [3], [4, 5, 6]]
    of = world([*lists, [0, 7]], 20)  # the last client is nobody's of the draws
    negatives = torch.tensor([11, 12, 13, 14, 15, 16])
    nothing = torch.zeros(0)
    draws = script.Draws(nothing, nothing, negatives, torch.tensor([0, 2, 3]))
    given = script.Given(1, draws=draws)

    cohort = cohort_of(of, torch.tensor([0, 2, 3]))
    within = torch.tensor([0, 1, 0, 1, 2, 0, 1])
    found = given.drawn(cohort, within, Stream(0))[:, 0].tolist()

    assert found[:5] == [11, 12, 14, 15, 16]
    assert not {0, 7} & {*found[5:]}


def test_public_interactions_are_the_repositorys(
    script: ModuleType, folder: Path
) -> None:
    public = script.public_of(folder / "train.part-1%.txt", world([[]] * USERS, ITEMS))
    assert isinstance(public, Ragged)
    assert public.counts.tolist() == [1] * USERS
    assert not torch.equal(public.item, lay([[0]] * USERS).item)


@pytest.mark.slow
@pytest.mark.realdata
def test_the_repositorys_first_draws_are_replayed(script: ModuleType) -> None:
    if "PRIVFED_DATA" not in os.environ:
        pytest.skip("PRIVFED_DATA names no data folder")
    done = CliRunner().invoke(
        script.main, ["--only", "trace", "--seeds", "1", "--json"]
    )
    claims = [c for c in json.loads(done.stdout) if c["name"].startswith("epoch 0")]
    assert len(claims) == 3
    assert all(claim["holds"] for claim in claims)
