"""The page for administrators says what the code says."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
import yaml

from llm_engineering.configuration.sagemaker import SagemakerSettings

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "docs" / "sagemaker" / "README.md").read_text(encoding="utf-8")


def texts_of_the_code() -> list[str]:
    """The text of every string of the package; what a value is put into is a hole."""
    found = []
    for path in (ROOT / "llm_engineering").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "\0" for p in node.values]
                found.append("".join(parts))
    return found


def messages() -> list[str]:
    table = README.split("## Troubleshooting")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    return [re.match(r"\| `(.+?)` \|", row)[1] for row in rows]


@pytest.mark.parametrize("message", messages())
def test_a_message_of_the_table_is_one_of_the_code(message: str) -> None:
    # AWS's own code stands where the message has a hole.
    wanted = message.replace("AccessDeniedException", "\0")
    assert [text for text in texts_of_the_code() if wanted in text], message


def test_the_table_is_there() -> None:
    assert len(messages()) > 15


def test_its_values_fill_every_file_but_the_options() -> None:
    block = README.split("cat > values.sed <<'END'\n")[1].split("       END\n")[0]
    pairs = [line.strip().split("|")[1:3] for line in block.splitlines()]
    assert len(pairs) > 8
    for path in sorted((ROOT / "docs" / "sagemaker").glob("*.json")):
        text = path.read_text(encoding="utf-8")
        for placeholder, value in pairs:
            text = text.replace(placeholder, value)
        left = set(re.findall(r"<[A-Z_]+>", text))
        assert not left or "options" in path.name, (path.name, left)
        json.loads(text)


def test_its_configuration_is_valid() -> None:
    block = README.split("    sagemaker:\n")[1].split("\n\n")[0]
    settings = SagemakerSettings.model_validate(yaml.safe_load(block))
    assert settings.bucket == "my-team-finetuning"


def test_the_keys_in_backticks_exist() -> None:
    section = README.split("## Real life")[1].split("\n## ")[0]
    named = set(re.findall(r"`([a-z_]+)(?:[.:][^`]*)?`", section))
    known = set(SagemakerSettings.model_fields) | {"held_out"}  # a metric
    assert {name for name in named if "_" in name} <= known


def test_every_link_within_it_leads_somewhere() -> None:
    heads = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in README.splitlines()
        if line.startswith("#")
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= heads
