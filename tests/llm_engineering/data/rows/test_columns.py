"""Columns under other names: they are mapped as stated, and a mapping is proposed."""

from __future__ import annotations

from typing import Any

import pytest

from llm_engineering.data.rows.columns import map_columns, proposal
from llm_engineering.data.rows.unusable import UnusableRowError


def test_columns_get_the_names_that_the_forms_know() -> None:
    unread: set[str] = set()
    row = {"question": "a", "answer": "b", "prompt": "template", "text": None, "id": 3}

    mapped = map_columns(row, {"prompt": "question", "completion": "answer"}, unread)

    assert mapped == {"prompt": "a", "completion": "b", "text": None, "id": 3}
    assert unread == {"column prompt"}  # its own prompt column, whose name another has now


def test_columns_may_change_places() -> None:
    row = {"input": "a", "output": "b"}

    assert map_columns(row, {"input": "output", "output": "input"}, set()) == {
        "input": "b",
        "output": "a",
    }


def test_a_column_that_the_row_does_not_have_is_named() -> None:
    with pytest.raises(UnusableRowError) as caught:
        map_columns(
            {"question": "a", "reply": "b"}, {"prompt": "question", "completion": "r"}, set()
        )

    assert str(caught.value) == (
        "has no column r, which the source's columns name; it has question, reply"
    )


@pytest.mark.parametrize(
    ("row", "mapping"),
    [
        ({"question": "a", "answer": "b"}, "{prompt: question, completion: answer}"),
        ({"query": "a", "response": "b"}, "{prompt: query, completion: response}"),
        ({"input": "a", "output": "b"}, "{prompt: input, completion: output}"),
        ({"input": "a", "target": "b"}, "{prompt: input, completion: target}"),
        ({"inputs": "a", "targets": "b"}, "{prompt: inputs, completion: targets}"),
        ({"problem": "a", "solution": "b"}, "{prompt: problem, completion: solution}"),
        ({"article": "a", "summary": "b"}, "{prompt: article, completion: summary}"),
        ({"dialogue": "a", "summary": "b", "id": "c"}, "{prompt: dialogue, completion: summary}"),
        ({"prompt": "a", "response": "b"}, "{prompt: prompt, completion: response}"),
        ({"INSTRUCTION": "a", "RESPONSE": "b"}, "{prompt: INSTRUCTION, completion: RESPONSE}"),
        ({"question": "a", "answers": ["b"]}, None),
        ({"input": [{"role": "user"}], "output": "b"}, "{prompt: input, completion: output}"),
        ({"input_text": "a", "output_text": "b"}, "{prompt: input_text, completion: output_text}"),
        ({"answer": "a"}, None),
        ({"a": "b"}, None),
    ],
)
def test_the_mapping_that_would_be_tried(row: dict[str, Any], mapping: str | None) -> None:
    assert proposal(row) == mapping
