"""Both forms of a row, and the reason for which each kind of bad row is refused."""

from __future__ import annotations

from typing import Any

import pytest

from llm_engineering.data.conversation import UnusableRowError, to_conversation


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def system(content: Any) -> dict[str, Any]:
    return {"role": "system", "content": content}


@pytest.mark.parametrize("column", ["response", "output"])
def test_an_instruction_and_its_answer(column: str) -> None:
    row = {"instruction": "Add 1 and 1.", column: "2", "module": "unused"}

    assert to_conversation(row) == [user("Add 1 and 1."), assistant("2")]


def test_response_is_preferred_to_output() -> None:
    row = {"output": "second", "response": "first", "instruction": "x"}

    assert to_conversation(row)[1] == assistant("first")


def test_an_input_is_appended_to_the_instruction() -> None:
    row = {"instruction": "Translate.", "input": "Haus", "output": "house"}

    assert to_conversation(row) == [user("Translate.\n\nHaus"), assistant("house")]


@pytest.mark.parametrize("absent", [None, ""])
def test_an_absent_input_leaves_the_instruction_as_it_is(absent: str | None) -> None:
    row = {"instruction": "Translate.", "input": absent, "output": "house"}

    assert to_conversation(row)[0] == user("Translate.")


def test_text_is_kept_to_the_character() -> None:
    row = {"instruction": "  Größe?\n\n", "response": "\t日本 <b> "}

    assert to_conversation(row) == [user("  Größe?\n\n"), assistant("\t日本 <b> ")]


def test_messages_keep_their_order_and_the_system_prompt() -> None:
    messages = [
        system("Be short."),
        user("1 + 1?"),
        assistant("2"),
        user("And 2 + 2?"),
        assistant("4"),
    ]

    assert to_conversation({"messages": messages}) == messages


def test_what_else_a_message_holds_is_left_out() -> None:
    row = {"messages": [{**user("Hi"), "name": "Ada"}, {**assistant("Hello"), "weight": 1}]}

    assert to_conversation(row) == [user("Hi"), assistant("Hello")]


def test_messages_are_preferred_to_an_instruction() -> None:
    row = {"messages": [user("a"), assistant("b")], "instruction": "c", "response": "d"}

    assert to_conversation(row) == [user("a"), assistant("b")]


ROLE_AND_CONTENT = "expected a list of role and content"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "has columns (none); expected messages, or instruction with response (or output)"),
        (
            {"prompt": "a", "completion": "b"},
            "has columns prompt, completion; expected messages, or instruction with response "
            "(or output)",
        ),
        (
            {"response": "b"},
            "has columns response; expected messages, or instruction with response (or output)",
        ),
        ({"instruction": "a"}, "has an instruction but neither a response nor an output column"),
        ({"instruction": None, "response": "b"}, "instruction is null, expected text"),
        ({"instruction": 3, "response": "b"}, "instruction is int, expected text"),
        ({"instruction": "", "response": "b"}, "instruction is empty"),
        ({"instruction": " \n\t", "response": "b"}, "instruction is empty"),
        ({"instruction": "a", "response": ""}, "response is empty"),
        ({"instruction": "a", "response": "\u2003\n"}, "response is empty"),
        ({"instruction": "a", "response": None}, "response is null, expected text"),
        ({"instruction": "a", "output": ["b"]}, "output is list, expected text"),
        ({"instruction": "a", "input": 7, "output": "b"}, "input is int, expected text"),
        ({"instruction": "a", "input": " ", "output": "b"}, "input is empty"),
        (
            {"instruction": "a", "response": "b\ud800"},
            "response holds a lone surrogate, which is no text",
        ),
        ({"instruction": "a\x00", "response": "b"}, "instruction holds a NUL character"),
        ({"messages": None}, f"messages is null, {ROLE_AND_CONTENT}"),
        ({"messages": "Hi"}, f"messages is str, {ROLE_AND_CONTENT}"),
        ({"messages": []}, f"messages is list, {ROLE_AND_CONTENT}"),
        ({"messages": ["Hi"]}, "message 1 has no role and content"),
        ({"messages": [{"role": "user"}]}, "message 1 has no role and content"),
        (
            {"messages": [{"from": "human", "value": "Hi"}]},
            "message 1 has no role and content",
        ),
        (
            {"messages": [user("a"), {"role": "tool", "content": "b"}]},
            "message 2 has role 'tool'; known: system, user, assistant",
        ),
        (
            {"messages": [{"role": None, "content": "b"}]},
            "message 1 has role None; known: system, user, assistant",
        ),
        (
            {"messages": [{"role": ["user"], "content": "b"}]},
            "message 1 has role ['user']; known: system, user, assistant",
        ),
        (
            {"messages": [user("a"), assistant("b"), system("c")]},
            "message 3 is a system message; only the first may be",
        ),
        (
            {"messages": [assistant("a")]},
            "message 1 is the assistant's but does not follow a user's",
        ),
        (
            {"messages": [system("a"), assistant("b")]},
            "message 2 is the assistant's but does not follow a user's",
        ),
        (
            {"messages": [user("a"), assistant("b"), assistant("c")]},
            "message 3 is the assistant's but does not follow a user's",
        ),
        ({"messages": [user("a"), user("b")]}, "message 2 is a second user message in a row"),
        (
            {"messages": [user("a"), assistant("b"), user("c")]},
            "ends with a user message; nothing to learn from",
        ),
        ({"messages": [system("a")]}, "ends with a system message; nothing to learn from"),
        ({"messages": [user("a"), assistant("")]}, "message 2 is empty"),
        ({"messages": [user("a"), assistant(None)]}, "message 2 is null, expected text"),
        (
            {"messages": [user([{"type": "text", "text": "a"}]), assistant("b")]},
            "message 1 is list, expected text",
        ),
    ],
)
def test_a_bad_row_is_refused_with_its_reason(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnusableRowError) as caught:
        to_conversation(row)

    assert str(caught.value) == reason
