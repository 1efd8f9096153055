"""Answered rows, made of texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from judge_server import JudgeServer

from llm_engineering.scoring.answers import Answer, AnsweredRow

MakeRow = Callable[..., AnsweredRow]


def answer(text: str, calls: list[dict[str, Any]] | None = None) -> Answer:
    return Answer(text=text, tokens=len(text.split()), is_cut=False, tool_calls=calls)


@pytest.fixture
def make_row() -> MakeRow:
    """A row with the base model's and the adapter's answer, and the data's."""

    def make(before: str, after: str, reference: str = "", *, number: int = 1, **calls: Any) -> Any:
        return AnsweredRow(
            origin=f"held_out.jsonl:{number}",
            key=str(number),
            prompt=f"Question {number}?",
            reference=reference,
            reference_calls=calls.get("reference_calls"),
            before=answer(before, calls.get("before_calls")),
            after=answer(after, calls.get("after_calls")),
        )

    return make


@pytest.fixture
def judge_server() -> Iterator[JudgeServer]:
    """A stand-in for a judge's endpoint, on a port of this host."""
    with JudgeServer() as server:
        yield server
