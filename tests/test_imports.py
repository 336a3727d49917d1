"""Imports point one way, and an attack cannot import the truth."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import privfed

ROOT = Path(privfed.__file__).parent
# From the ground up; a module imports only from its own layer or from those before.
LAYERS = (
    (
        "errors",
        "checks",
        "seeds",
        "built_in",
        "catalog",
        "fields",
        "choices",
    ),  # built_in: names alone
    ("messages", "views", "data", "accounting", "devices"),
    ("interfaces", "surfaces", "replay", "guesses", "adversary", "poisoning"),
    ("methods", "channels", "attacks", "defenses", "poisoners"),
    ("config",),
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
ATTACKS_MAY_IMPORT = (
    "privfed.adversary",
    "privfed.shadows",
    "privfed.replay",
    "privfed.guesses",
    "privfed.interfaces",
    "privfed.surfaces",
    "privfed.views",
    "privfed.messages",
    "privfed.devices.recipe",
    "privfed.data.features",
    "privfed.data.attributes",
    "privfed.attacks",
    "privfed.checks",
    "privfed.errors",
)
POISONERS_MAY_IMPORT = {*ATTACKS_MAY_IMPORT, "privfed.poisoning", "privfed.poisoners"}
POISONERS_MAY_IMPORT -= {"privfed.attacks", "privfed.guesses", "privfed.shadows"}
ADVERSARIES = {"attacks": ATTACKS_MAY_IMPORT, "poisoners": POISONERS_MAY_IMPORT}
# Types that a prior is made of, and nothing that holds or draws the truth.
ATTACKS_MAY_NAME = {
    "privfed.data.world": {"Pairs", "Ragged", "Shape", "Task"},
    "privfed.seeds": {"Stream"},
}


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(("privfed", *path.relative_to(ROOT).with_suffix("").parts))


def imported(path: Path) -> Iterator[str]:
    """Every privfed module that a file imports, at its head or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            if node.module == "privfed":
                yield from (f"privfed.{alias.name}" for alias in node.names)
            else:
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def part(module: str) -> str:
    return [*module.split("."), ""][1]


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    own = RANK.get(part(name_of(path)))
    if own is None:
        return
    for module in imported(path):
        if module.startswith("privfed."):
            rank = RANK.get(part(module), -1)
            assert rank <= own, f"{name_of(path)} imports {module}"


@pytest.mark.parametrize(
    "path",
    [path for kind in ADVERSARIES for path in sorted((ROOT / kind).rglob("*.py"))],
    ids=name_of,
)
def test_adversaries_cannot_import_the_truth(path: Path) -> None:
    may = ADVERSARIES[part(name_of(path))]
    for module in imported(path):
        if module.split(".")[0] == "privfed":
            allowed = any(module == one or module.startswith(f"{one}.") for one in may)
            named = set(names_from(path, module))
            few = named and named <= ATTACKS_MAY_NAME.get(module, set())
            assert allowed or few, f"{name_of(path)} imports {module}"


def names_from(path: Path, module: str) -> Iterator[str]:
    """What a file imports from a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == module:
            yield from (alias.name for alias in node.names)


PARTS = {"methods", "channels", "attacks", "defenses", "poisoners"}


@pytest.mark.parametrize("kind", sorted(PARTS))
def test_parts_know_no_other_kind_of_part(kind: str) -> None:
    others = {*PARTS, "catalog"} - {kind}
    for path in sorted((ROOT / kind).rglob("*.py")):
        for module in imported(path):
            assert part(module) not in others, f"{name_of(path)} imports {module}"


def test_the_rules_would_notice(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from privfed.data.world import World\n")
    assert list(imported(bad)) == ["privfed.data.world"]
