"""No circle of files: whatever file is read first, what it needs is read to its end before."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("llm_engineering", "pipelines", "steps")


def modules() -> dict[str, Path]:
    """Every module of the project, by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imported(path: Path, names: set[str]) -> Iterator[str]:
    """The project's modules that a file names in an import, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom) and node.module in names:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from [name for name in inner if name in names] or [node.module]


def test_no_file_needs_another_that_needs_it() -> None:
    found = modules()
    graph = {name: set(imported(path, set(found))) for name, path in found.items()}
    assert sum(map(len, graph.values())) > 700
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of files: {' -> '.join(error.args[1])}")


def test_every_import_of_the_project_is_of_something_that_is_there() -> None:
    """mypy passes over a module of ours that is missing, since others' may be missing."""
    found = modules()
    missing = [
        f"{name}: {node.module}"
        for name, path in found.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").split(".")[0] in PACKAGES
        and node.module not in found
    ]
    assert missing == []
