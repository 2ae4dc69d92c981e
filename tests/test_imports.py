"""Imports go one way: pwlu <- models, pwlu <- engine; only programs and tools know both.

Tools may import the programs: a trained network and its images are built in one place, a program's `build`.
Nothing imports tools, and the programs import neither each other nor tools.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = ("train_imagenet", "train_coco")
LOCAL = {"pwlu", "models", "engine", "tools", *PROGRAMS}
MAY_IMPORT = {
    "pwlu": {"pwlu"},
    "models": {"models", "pwlu"},
    "engine": {"engine", "pwlu"},
    "tools": {"tools", "engine", "models", "pwlu", *PROGRAMS},
    **{program: {"engine", "models", "pwlu"} for program in PROGRAMS},
}


def source_files() -> list[tuple[str, Path]]:
    files = [("pwlu", path) for path in (ROOT / "pwlu_ext" / "pwlu").rglob("*.py")]
    for package in ("models", "engine", "tools"):
        files += [(package, path) for path in (ROOT / package).rglob("*.py")]
    return files + [(program, ROOT / f"{program}.py") for program in PROGRAMS]


def imported_modules(path: Path) -> set[str]:
    """Absolute names of what a file imports, wherever in it; relative imports stay inside their package."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize(
    ("package", "path"), source_files(), ids=lambda value: value.name if isinstance(value, Path) else value
)
def test_imports_follow_the_allowed_direction(package: str, path: Path) -> None:
    local = {name.split(".")[0] for name in imported_modules(path)} & LOCAL
    assert local <= MAY_IMPORT[package]


def test_only_programs_see_the_configuration() -> None:
    readers = {
        path.relative_to(ROOT).as_posix()
        for package, path in source_files()
        if package in ("pwlu", "models", "engine")
        and any(name.startswith("engine.config.load") for name in imported_modules(path))
    }
    assert all(reader.startswith("engine/config") for reader in readers)
