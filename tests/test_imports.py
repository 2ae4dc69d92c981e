"""Imports go one way, and never in a circle."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = ("train_imagenet", "train_coco")
MAY_IMPORT = {
    "pwlu": {"pwlu"},
    "models": {"models", "pwlu"},
    "engine": {"engine", "pwlu"},
    **{program: {program, "engine", "models", "pwlu"} for program in PROGRAMS},
    "pwlu_ext": {"pwlu_ext", "engine", "pwlu"},  # pwlu_ext.benchmarks
    "tools": {"tools", "pwlu_ext", "engine", "models", "pwlu", *PROGRAMS},
}


def sources() -> dict[str, Path]:
    """Return the file of every module, by the module's full name."""
    files = {}
    for package in ("pwlu_ext/pwlu", "pwlu_ext/benchmarks", "models", "engine", "tools"):
        top = ROOT / "pwlu_ext" if package == "pwlu_ext/pwlu" else ROOT
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(top).with_suffix("").parts)
            files[name.removesuffix(".__init__")] = path
    return files | {program: ROOT / f"{program}.py" for program in PROGRAMS}


SOURCES = sources()


def imports(module: str) -> set[str]:
    """Return the modules of the project that `module` imports, wherever in the file."""
    path = SOURCES[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            parts = {f"{base}.{alias.name}" for alias in node.names}
            # `from package import module` needs the module, `from package import name` the package
            names |= {part if part in SOURCES else base for part in parts}
    return (names & SOURCES.keys()) - {module}


GRAPH = {module: imports(module) for module in SOURCES}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_follow_the_allowed_direction(package: str) -> None:
    wrong = {
        f"{module} imports {target}"
        for module, targets in GRAPH.items()
        for target in targets
        if module.split(".")[0] == package and target.split(".")[0] not in MAY_IMPORT[package]
    }
    assert not wrong


def test_no_circle() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_no_program_imports_another() -> None:
    programs = {name for name, path in SOURCES.items() if 'if __name__ == "__main__"' in path.read_text()}
    programs.difference_update(PROGRAMS)  # tools open a trained network by its program's `build`
    assert programs
    wrong = [f"{module} imports {target}" for module in SOURCES for target in GRAPH[module] & programs]
    assert wrong == []


def test_only_programs_and_tools_load_a_configuration() -> None:
    readers = {module for module, targets in GRAPH.items() if "engine.config.load" in targets}
    assert readers
    assert all(
        name.startswith(("engine.config", "engine.runs.main", "tools.", *PROGRAMS)) for name in readers
    )
