"""The source files of this project that a module needs, however far away."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGE = "llm_engineering"
_READ = (".jinja", ".txt")  # read by the code beside them: chat templates, passages

_IMPORT = re.compile(
    r"^[ \t]*(?:from\s+(?P<module>llm_engineering[\w.]*)\s+import\s*(?P<names>\([^)]*\)|[^\n]*)"
    r"|import\s+(?P<plain>llm_engineering[\w.]*))",
    re.MULTILINE,
)


def sources_behind(modules: Iterable[str]) -> list[Path]:
    """Files of the modules and of all that they import, inside functions too; what these read as well.

    Args:
        modules: Dotted names.
    """
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found and _file(name) is not None:
            found.add(name)
            waiting += _imported(name)
    files = {file for name in found if (file := _file(name)) is not None}
    folders = {file.parent for file in files} - {_ROOT / _PACKAGE}
    files |= {path for folder in folders for path in folder.rglob("*") if path.suffix in _READ}
    return sorted(files)


def _file(module: str) -> Path | None:
    base = _ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imported(module: str) -> Iterator[str]:
    """The project's modules that a module names in its imports, and the packages that these are in."""
    file = _file(module)
    if file is None:
        return
    for name in _names(file):
        if name.split(".")[0] == _PACKAGE:
            parts = name.split(".")
            yield from (".".join(parts[:length]) for length in range(2, len(parts) + 1))


def _names(file: Path) -> Iterator[str]:
    """What a file names in imports. Read as text: building its syntax tree takes twenty times as long."""
    for match in _IMPORT.finditer(file.read_text(encoding="utf-8")):
        module = match["module"] or match["plain"]
        yield module
        yield from (f"{module}.{name}" for name in re.findall(r"\w+", match["names"] or ""))
