"""Tests of questions in a file: every form of a row, with or without its answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_engineering.errors import DataError
from llm_engineering.talk.questions import read_questions

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "Because."},
]


@pytest.mark.parametrize(
    ("row", "roles", "reference"),
    [
        ({"question": "Why?"}, ["user"], None),
        ({"prompt": "Why?", "system": "Be brief."}, ["system", "user"], None),
        ({"prompt": "Why?", "completion": "Because."}, ["user"], "Because."),
        ({"prompt": TURNS[:2]}, ["system", "user"], None),
        ({"instruction": "Why?", "input": "The sky."}, ["user"], None),
        ({"instruction": "Why?", "response": "Because."}, ["user"], "Because."),
        (
            {"instruction": "Why?", "history": [["Who?", "Me."]]},
            ["user", "assistant", "user"],
            None,
        ),
        ({"messages": TURNS}, ["system", "user"], "Because."),
        ({"messages": TURNS[:2]}, ["system", "user"], None),
        ({"conversations": [{"from": "human", "value": "Why?"}]}, ["user"], None),
    ],
    ids=str,
)
def test_every_form_is_asked_up_to_its_answer(
    row: dict[str, Any], roles: list[str], reference: str | None, write_jsonl: Any, tmp_path: Path
) -> None:
    file = write_jsonl(tmp_path / "questions.jsonl", [row])

    (question,) = read_questions(str(file))

    assert question.origin == f"{file}:1"
    assert [one.role for one in question.conversation.messages] == roles
    assert "Why?" in question.conversation.messages[-1].content
    assert question.reference == reference


def test_tools_come_with_the_question(write_jsonl: Any, tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    file = write_jsonl(tmp_path / "q.jsonl", [{"messages": TURNS[:2], "tools": [tool]}])

    (question,) = read_questions(str(file))

    assert question.conversation.tools[0]["function"]["name"] == "look"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"colour": "red"}, "has columns colour, and asks nothing"),
        ({"messages": TURNS[:1]}, "asks nothing: no message of the user"),
        ({"question": 7}, "question"),
        ("{", ""),
    ],
    ids=str,
)
def test_a_row_that_asks_nothing_is_told_by_its_line(
    row: Any, reason: str, write_jsonl: Any, tmp_path: Path
) -> None:
    file = write_jsonl(tmp_path / "q.jsonl", [{"question": "Why?"}, row])
    with pytest.raises(DataError, match=f"q.jsonl:2: .*{reason}"):
        read_questions(str(file))
