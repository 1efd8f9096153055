"""Which errors the project has, found in its files."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

from llm_engineering.errors import FinetuningError

ROOT = Path(__file__).resolve().parents[1]


def class_definitions() -> Iterator[tuple[str, ast.ClassDef]]:
    """The module of each class that is named as an error, and the class."""
    for path in sorted((ROOT / "llm_engineering").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
                yield ".".join(path.relative_to(ROOT).with_suffix("").parts), node


def error_classes() -> Iterator[type[FinetuningError]]:
    """Every error that ends a command in words, with its base."""
    for module, node in class_definitions():
        kind = getattr(importlib.import_module(module), node.name)
        if issubclass(kind, FinetuningError):
            yield kind
