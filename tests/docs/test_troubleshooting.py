"""docs/troubleshooting.md: it quotes messages of the code, and has an entry for each of its errors."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from error_classes import class_definitions

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
OURS = PAGE.partition("## Words of other programs")[0]
MESSAGES = re.findall(r"^\| `((?:[^`])+)` \|", OURS, re.MULTILINE)


@pytest.mark.parametrize("name", sorted({node.name for _, node in class_definitions()}))
def test_every_error_has_its_entry(name: str) -> None:
    assert re.search(rf"\b{name}\b", PAGE)


def test_every_error_that_a_command_ends_with_has_a_table() -> None:
    for heading, text in re.findall(r"^## (\w+Error.*?)\n(.*?)(?=^## )", OURS, re.M | re.S):
        assert "| message | do |" in text, heading


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_is_one_of_the_code(message: str) -> None:
    pattern = re.escape(message).replace("…", ".*")
    assert re.search(pattern, _texts()), "the code says no such thing"


@cache
def _texts() -> str:
    """Every text of the code, a line each, with … for what is put into it."""
    found = []
    for path in (ROOT / "llm_engineering").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            found.append(_text(node).replace("\n", " "))
    return "\n".join(found)


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or "…" for part in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return ""
