"""Tests of ``llm_engineering.scoring.tool_calls``: the forms in which families write calls."""

from __future__ import annotations

import pytest

from llm_engineering.scoring.tool_calls import read_calls

CALL = {"name": "add", "arguments": {"a": 1}}


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call><|im_end|>',
        'I add.<tool_call>{"arguments": {"a": 1}, "name": "add"}</tool_call>',
        '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1}"}</tool_call>',
        '<|python_tag|>{"name": "add", "parameters": {"a": 1}}<|eom_id|>',
        '{"name": "add", "parameters": {"a": 1}}',
        '[{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}]',
        '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}}]</s>',
        '[TOOL_CALLS]add[ARGS]{"a": 1}</s>',
    ],
)
def test_a_call_is_read(text: str) -> None:
    assert read_calls(text) == [CALL]


def test_several_calls_are_read_in_their_order() -> None:
    text = '<tool_call>{"name": "a"}</tool_call>\n<tool_call>{"name": "b"}</tool_call>'
    assert [call["name"] for call in read_calls(text)] == ["a", "b"]
    assert len(read_calls('[{"name": "a"}, {"name": "b"}]')) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I would add them.",
        '{"sum": 3}',
        "<tool_call>add(1)</tool_call>",
        '{"name": 3, "arguments": {}}',
        '{"name": "add", "arguments": [1]}',
        "[TOOL_CALLS]add[ARGS]one",
        "[" * 100_000,
    ],
)
def test_what_is_no_call_is_none(text: str) -> None:
    assert read_calls(text) == []
