"""Tools and calls: every way to write them is the same call, and what is none is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_engineering.data.rows.message import ToolCall
from llm_engineering.data.rows.tools import read_call_text, read_calls, read_tools
from llm_engineering.data.rows.unusable import UnusableRowError

FUNCTION = {"name": "add", "description": "Sum.", "parameters": {"type": "object"}}
TOOL = {"type": "function", "function": FUNCTION}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}


@pytest.mark.parametrize(
    "value",
    [
        [TOOL],
        [FUNCTION],
        [{"function": FUNCTION}],
        json.dumps([TOOL]),
        json.dumps([FUNCTION]),
        [json.dumps(TOOL)],
        TOOL,
    ],
)
def test_every_way_to_write_a_tool_is_the_same_tool(value: Any) -> None:
    assert read_tools(value, "tools") == [TOOL]


@pytest.mark.parametrize("value", [None, "", [], "[]"])
def test_no_tools(value: Any) -> None:
    assert read_tools(value, "tools") == []


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (3, "tools is int, expected a list of tools"),
        ("{", "tools is not JSON: "),
        (["x"], "tools: tool 1 is not JSON: "),
        ([3], "tools: tool 1 is int, expected an object"),
        ([TOOL, {}], "tools: tool 2 has neither a function nor a name; expected "),
        ([{"function": {}}], "tools: tool 1 has no name"),
        ([{"type": "web_search"}], "tools: tool 1 has neither a function nor a name"),
        ([{"name": "a", "x": {1, 2}}], "tools: tool 1 cannot be written as JSON"),
        ([{"name": "a", "x": "\ud800"}], "tools: tool 1 cannot be written as JSON"),
        ([{"name": "a", "x": float("nan")}], "tools: tool 1 cannot be written as JSON"),
    ],
)
def test_what_is_no_tool_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(UnusableRowError) as caught:
        read_tools(value, "tools")

    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize(
    "value",
    [
        [CALL],
        CALL,
        json.dumps([CALL]),
        [json.dumps(CALL)],
        [{"id": "c1", "name": "add", "arguments": {"a": 1}}],
        [{"id": "c1", "function": {"name": "add", "arguments": '{"a": 1}'}}],
    ],
)
def test_every_way_to_write_a_call_is_the_same_call(value: Any) -> None:
    assert read_calls(value, "message 2", "", set()) == (ToolCall("add", {"a": 1}, "c1"),)


@pytest.mark.parametrize("arguments", [None, "", {}, "{}"])
def test_a_call_may_have_no_arguments(arguments: Any) -> None:
    calls = read_calls({"name": "now", "arguments": arguments}, "message 2", "", set())

    assert calls == (ToolCall("now", {}),)


def test_what_else_a_call_holds_is_told_also_where_it_is_text() -> None:
    unread: set[str] = set()
    call = {**CALL, "index": 1, "function": {"name": "add", "arguments": "{}", "strict": True}}

    read_calls(json.dumps([call]), "message 2", "messages[].tool_calls[].", unread)
    read_call_text('{"name": "a", "note": "x"}', "message 2", "conversations[].value[].", unread)

    assert unread == {
        "messages[].tool_calls[].index",
        "messages[].tool_calls[].function.strict",
        "conversations[].value[].note",
    }


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (3, "message 2: call 1 is int, expected an object with name and arguments"),
        ("add(1)", "message 2 is not JSON: "),
        (
            [{**CALL, "type": "custom"}],
            "message 2: call 1 is of type 'custom'; supported: function",
        ),
        ([CALL, {"arguments": {}}], "message 2: call 2 names no function"),
        (
            [{"name": "a", "arguments": [1]}],
            "message 2: call 1: arguments are list, expected an obj",
        ),
        ([{"name": "a", "arguments": "x=1"}], "message 2: call 1: arguments is not JSON: "),
        (
            [{"name": "a", "arguments": '{"b": 1, "b": 2}'}],
            "message 2: call 1: arguments is not JSON: names a key twice",
        ),
        ([{"name": "a", "id": 7}], "message 2: call 1: its id is int, expected text"),
        (
            [{"name": "a", "arguments": {"b": "\ud800"}}],
            "message 2: call 1: arguments cannot be written as JSON",
        ),
    ],
)
def test_what_is_no_call_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(UnusableRowError) as caught:
        read_calls(value, "message 2", "", set())

    assert str(caught.value).startswith(reason)


def test_a_thought_before_a_call_in_text_is_kept_as_text() -> None:
    text = '<think>\nI must add.\n</think>\n\n{"name": "add", "arguments": {}}'

    assert read_call_text(text, "message 2", "", set()) == (
        "<think>\nI must add.\n</think>",
        (ToolCall("add", {}),),
    )
