"""What the documents tell people to type is what the program understands."""

import re
import runpy
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import privfed
from privfed.cli import main
from privfed.cli import privfed as group
from privfed.cli.options import layer
from privfed.cli.run import run
from privfed.config import run_settings

ROOT = Path(privfed.__file__).parents[1]
if not (ROOT / "README.md").exists():
    pytest.skip("the documents are not shipped", allow_module_level=True)

DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(p for d in ("docs", "attacks", "defenses", "benchmarks")
          for p in (ROOT / d).glob("*.md")),
    ]
)  # fmt: skip
SHELL = {"", "sh", "bash", "console"}
SCRIPT = re.compile(r"(?:\S*/)?python3? ((?:attacks|defenses|benchmarks)/\w+\.py)\b")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Every fenced block: its language and its content."""
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S):
        yield found[1], found[2]


def prose(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def typed(text: str) -> Iterator[str]:
    """Every command in a document: lines of shell blocks, and code in prose."""
    lines = [x for lang, c in blocks(text) if lang in SHELL for x in c.splitlines()]
    lines += re.findall(r"^    (\S.*)$", prose(text), re.M)  # indented blocks
    for line in lines:
        yield from re.split(r" && ", re.sub(r"\s+# .*$", "", line))
    yield from re.findall(r"`([^`\n]+)`", prose(text))


def commands(program: re.Pattern[str]) -> list[tuple[str, str]]:
    """(document, command) of all commands that a program's name begins."""
    found = {
        (name_of(path), command.removeprefix("$ ").strip())
        for path in DOCUMENTS
        for command in typed(path.read_text())
    }
    return sorted(pair for pair in found if program.match(pair[1]))


def parse(command: click.Command, words: list[str]) -> click.Context:
    """Parse words as click does, down to the last subcommand; run nothing."""
    name = command.name or "script"
    if isinstance(command, click.Group) and not words:
        return click.Context(command)  # shows its help
    if isinstance(command, click.Group) and not words[0].startswith("-"):
        with command.make_context(name, [words[0]]) as context:
            below = command.get_command(context, words[0])
        assert below is not None, f"{name} has no command {words[0]!r}"
        return parse(below, words[1:])
    return command.make_context(name, words)


def words_of(command: str) -> list[str]:
    """A command's words after the program's name, without redirections."""
    plain = re.sub(r"\s*[|>].*$", "", command)
    return shlex.split(plain)[1:]


PRIVFED = commands(re.compile(r"(?:\.venv/bin/)?privfed [-a-z]"))
SCRIPTS = commands(SCRIPT)


@pytest.fixture
def _study_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that commands in the documents read, in the folder we are in."""
    monkeypatch.chdir(tmp_path)
    for name in ("study.toml", "settings.toml"):
        (tmp_path / name).write_text("rounds = 3\n")


@pytest.mark.parametrize(("document", "command"), PRIVFED, ids=map(" | ".join, PRIVFED))
@pytest.mark.usefixtures("_study_files")
def test_privfed_understands_what_the_documents_type(
    document: str, command: str
) -> None:
    try:
        context = parse(group, words_of(command))
    except click.exceptions.Exit:  # --help and --version end here
        return
    except click.ClickException as error:
        pytest.fail(f"{document}: {command}: {error.format_message()}")
    if context.command is run:
        told = dict(context.params)
        for word in ("study", "resume", "as_json", "quiet"):
            told.pop(word)
        run_settings(layer(told))  # raises SettingsError


@pytest.mark.parametrize(("document", "command"), SCRIPTS, ids=map(" | ".join, SCRIPTS))
def test_scripts_understand_what_the_documents_type(
    document: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = SCRIPT.match(command)
    assert found is not None
    script = ROOT / found[1]
    assert script.exists(), f"{document}: {command}"
    monkeypatch.syspath_prepend(script.parent)  # as python does with a script
    script_main = runpy.run_path(str(script))["main"]
    try:
        parse(script_main, words_of(command)[1:])
    except click.ClickException as error:
        pytest.fail(f"{document}: {command}: {error.format_message()}")


def test_the_documents_have_commands_to_check() -> None:
    assert {
        ("README.md", "privfed data get ml-100k"),
        ("README.md", ".venv/bin/privfed run --method fedmr --defense dp"),
        ("docs/quickstart.md", "privfed run study.toml"),
        ("attacks/items.md", "python attacks/interacted_items.py"),
        ("defenses/noise.md", "python defenses/noise_study.py"),
    } <= {*PRIVFED, *SCRIPTS}


def test_a_wrong_command_would_be_noticed() -> None:
    with pytest.raises(click.NoSuchOption):
        parse(group, ["run", "--defence", "dp"])
    with pytest.raises(AssertionError, match="no command"):
        parse(group, ["data", "fetch"])


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_study_files_in_the_documents_are_studies(path: Path) -> None:
    for language, content in blocks(path.read_text()):
        if language == "toml" and "[project" not in content:
            run_settings(tomllib.loads(content))  # raises SettingsError


def slug(heading: str) -> str:
    """A heading's anchor, as code hosts make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path.read_text())):
        if re.match(r"https?:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{name_of(path)} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", there.read_text(), re.M)
            assert anchor in map(slug, headings), f"{name_of(path)}: {target}"


def test_every_document_of_the_guide_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for path in sorted((ROOT / "docs").glob("*.md")):
        assert f"(docs/{path.name})" in readme, path.name


def test_ci_runs_the_tests_by_the_readmes_command() -> None:
    asked = subprocess.run(
        [str(ROOT / ".ci/run"), "test-command"],
        capture_output=True,
        text=True,
        check=True,
    )
    command = asked.stdout.strip()

    assert command.endswith("/pytest")
    assert any(command in content for _, content in blocks(readme_text()))
    assert 'bash -euc "$commands"' in (ROOT / ".ci/run").read_text()


def test_the_readme_begins_with_the_two_commands_that_set_up_everything() -> None:
    language, content = next(blocks(readme_text()))

    assert language in SHELL
    assert len(content.splitlines()) == 2
    first, second = content.splitlines()
    assert "-m venv .venv && " in first
    assert first.endswith("privfed run --method fedmr --defense dp")
    assert second.endswith("# runs the tests")


def readme_text() -> str:
    return (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_documents_name_no_folder_of_one_machine(path: Path) -> None:
    assert not re.search(r"(?<![\w.])/(?:home|root|work|mnt)/", path.read_text())


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("docs/adding-a-part.md", "10 items are claimed of a client"),
        ("docs/results.md", "0."),
    ],
)
@pytest.mark.usefixtures("_study_files")
def test_the_python_in_a_document_runs(
    document: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, object] = {"__name__": "document"}
    for language, content in blocks((ROOT / document).read_text()):
        if language == "python":
            exec(compile(content, document, "exec"), names)

    assert capsys.readouterr().out.strip().splitlines()[-1].startswith(told)


@pytest.mark.slow
def test_the_readme_shows_what_its_command_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = next(c for language, c in blocks(readme_text()) if language == "text")
    words = ["run", "--method", "fedmr", "--defense", "dp", "--quiet"]

    assert main([*words, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    old, new = figures(shown), figures(printed)
    assert old.keys() == new.keys()
    assert len(new) > 15
    for name, value in new.items():
        assert old[name] == pytest.approx(value, abs=0.02), name


def figures(table: str) -> dict[str, float]:
    """The plain figures of a printed table; each attack's in its order."""
    found: dict[str, float] = {}
    for name, value in re.findall(r"^ {2,4}(\S.*?) {2,}(-?\d\.\d{4})\b", table, re.M):
        found[f"{name} {sum(key.startswith(name) for key in found)}"] = float(value)
    return found
