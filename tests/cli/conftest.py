"""Command-line tests run in an empty folder, with no setting from outside."""

import os
from pathlib import Path

import pytest

from tests.cli.experiments import Experiment, install


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("PRIVFED_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> Experiment:
    return install(monkeypatch)
