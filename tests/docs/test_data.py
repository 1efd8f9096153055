"""docs/data.md: each row can be pasted, and is what the page says of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from llm_engineering.configuration.data import RowForm
from llm_engineering.data.rows.conversations import to_conversation
from llm_engineering.data.rows.forms import form_of
from llm_engineering.data.rows.preferences import to_preferences
from llm_engineering.data.rows.unusable import UnusableRowError

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```json (\w+)(?:: ([^\n]*))?\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
ROWS = [
    (kind, reason, json.loads(line))
    for kind, reason, lines in BLOCKS
    for line in lines.splitlines()
]


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    assert PAGE.count("```") == 2 * len(BLOCKS)
    assert {kind for kind, _, _ in BLOCKS} == {"sft", "continuation", "dpo", "kto", "refused"}


@pytest.mark.parametrize(("kind", "reason", "row"), ROWS)
def test_a_row_is_what_the_page_says(kind: str, reason: str, row: dict[str, Any]) -> None:
    unread: set[str] = set()

    if kind == "refused":
        with pytest.raises(UnusableRowError) as caught:
            to_conversation(row)
        assert reason in str(caught.value)
    elif kind == "sft":
        assert to_conversation(row, None, unread).messages
    elif kind == "continuation":
        assert to_conversation(row, "continuation", unread).messages[1].trained is True
    else:
        assert to_preferences(row, kind, unread)  # type: ignore[arg-type]
    assert unread == set()


def test_every_form_is_on_the_page() -> None:
    found = {form_of(row) for kind, _, row in ROWS if kind == "sft"}

    assert found | {"continuation"} == set(get_args(RowForm))
    for form in get_args(RowForm):
        assert f"**{form}**" in PAGE
