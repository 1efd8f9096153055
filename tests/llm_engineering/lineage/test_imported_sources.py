"""Which sources decide a step: all that is imported, however far away, and what these read."""

from __future__ import annotations

import ast
from pathlib import Path

from llm_engineering.lineage import fingerprints
from llm_engineering.lineage.imported_sources import sources_behind

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = "llm_engineering"


def closure(modules: list[str]) -> set[Path]:
    """The same by the syntax trees of the files."""
    found: dict[Path, None] = {}
    waiting = list(modules)
    while waiting:
        base = ROOT.joinpath(*waiting.pop().split("."))
        file = next(
            (p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None
        )
        if file is None or file in found:
            continue
        found[file] = None
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for parts in (name.split(".") for name in names if name.startswith(PACKAGE)):
                waiting += [".".join(parts[:length]) for length in range(2, len(parts) + 1)]
    return set(found)


def test_it_is_the_closure_of_the_imports():
    found = sources_behind(fingerprints._COMPUTE)
    assert {path for path in found if path.suffix == ".py"} == closure(list(fingerprints._COMPUTE))
    names = {path.relative_to(ROOT / PACKAGE).as_posix() for path in found}
    assert "distributed/fsdp.py" in names
    assert "model/chat_templates/chatml.jinja" in names
    assert "model/evaluation/generic_passages.txt" in names
    # A change to what only shows, registers or launches trains nothing again.
    rooms = {name.split("/")[0] for name in names}
    assert rooms.isdisjoint({"reporting", "registry", "sagemaker", "lineage", "commands"})
