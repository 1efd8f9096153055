"""Every form of a row, and the reason for which each kind of bad row is refused."""

from __future__ import annotations

from typing import Any

import pytest

from llm_engineering.data.rows.conversations import to_conversation
from llm_engineering.data.rows.forms import form_of
from llm_engineering.data.rows.message import Message, MessageDict
from llm_engineering.data.rows.unusable import UnusableRowError


def read(values: dict[str, Any], form: Any = None) -> list[MessageDict]:
    """The conversation of a row, written as ``user`` and the others write it."""
    return [one.to_dict() for one in to_conversation(values, form).messages]


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def system(content: Any) -> dict[str, Any]:
    return {"role": "system", "content": content}


@pytest.mark.parametrize("column", ["response", "output"])
def test_an_instruction_and_its_answer(column: str) -> None:
    row = {"instruction": "Add 1 and 1.", column: "2", "module": "unused"}

    assert read(row) == [user("Add 1 and 1."), assistant("2")]


def test_response_is_preferred_to_output() -> None:
    row = {"output": "second", "response": "first", "instruction": "x"}

    assert read(row)[1] == assistant("first")


def test_an_input_is_appended_to_the_instruction() -> None:
    row = {"instruction": "Translate.", "input": "Haus", "output": "house"}

    assert read(row) == [user("Translate.\n\nHaus"), assistant("house")]


@pytest.mark.parametrize("absent", [None, ""])
def test_an_absent_input_leaves_the_instruction_as_it_is(absent: str | None) -> None:
    row = {"instruction": "Translate.", "input": absent, "output": "house"}

    assert read(row)[0] == user("Translate.")


def test_text_is_kept_to_the_character() -> None:
    row = {"instruction": "  Größe?\n\n", "response": "\t日本 <b> "}

    assert read(row) == [user("  Größe?\n\n"), assistant("\t日本 <b> ")]


def test_messages_keep_their_order_and_the_system_prompt() -> None:
    messages = [
        system("Be short."),
        user("1 + 1?"),
        assistant("2"),
        user("And 2 + 2?"),
        assistant("4"),
    ]

    assert read({"messages": messages}) == messages


def test_what_else_a_message_holds_is_told_as_not_read() -> None:
    unread: set[str] = set()
    row = {"messages": [{**user("Hi"), "name": "Ada"}, {**assistant("Hello"), "mood": 1}], "id": 3}

    conversation = to_conversation(row, None, unread)

    assert [one.to_dict() for one in conversation.messages] == [user("Hi"), assistant("Hello")]
    assert unread == {"messages[].name", "messages[].mood", "column id"}


def test_a_system_prompt_beside_an_instruction_is_kept() -> None:
    row = {"system": "Be short.", "instruction": "1 + 1?", "output": "2"}

    assert read(row) == [system("Be short."), user("1 + 1?"), assistant("2")]


def test_a_prompt_and_its_completion() -> None:
    assert read({"prompt": "1 + 1?", "completion": "2"}) == [
        user("1 + 1?"),
        assistant("2"),
    ]


def test_a_prompt_and_its_completion_as_messages() -> None:
    row = {"prompt": [system("Be short."), user("1 + 1?")], "completion": [assistant("2")]}

    assert read(row) == [system("Be short."), user("1 + 1?"), assistant("2")]


def test_the_answers_of_a_prompt_are_not_trained() -> None:
    prompt = [user("1 + 1?"), assistant("2"), user("2 + 2?")]
    row = {"prompt": prompt, "completion": [assistant("4"), user("Sure?"), assistant("Yes.")]}

    assert [one.trained for one in to_conversation(row).messages] == [
        None,
        False,
        None,
        None,
        None,
        None,
    ]
    marked = {**row, "prompt": [prompt[0], {**prompt[1], "train": True}, prompt[2]]}
    assert to_conversation(marked).messages[1].trained is True


def test_an_empty_cell_of_a_table_of_numbers_is_absent() -> None:
    row = {"instruction": "Translate.", "input": float("nan"), "output": "a", "images": "[]"}

    assert read(row) == [user("Translate."), assistant("a")]


def test_history_may_be_json_text() -> None:
    row = {"instruction": "c", "output": "d", "history": '[["a", "b"]]'}

    assert read(row) == [user("a"), assistant("b"), user("c"), assistant("d")]


@pytest.mark.parametrize(
    ("history", "reason"),
    [
        ("a", "history is not JSON: "),
        ({"a": "b"}, "history is dict, expected a list of two texts each"),
        ([["a"]], "history: turn 1 is not a question and its answer"),
        ([["a", "b"], ["c", None]], "history: turn 2 is null, expected text"),
    ],
)
def test_a_history_that_is_none_is_refused(history: Any, reason: str) -> None:
    with pytest.raises(UnusableRowError) as caught:
        read({"instruction": "c", "output": "d", "history": history})

    assert str(caught.value).startswith(reason)


def test_a_continuation_is_two_plain_texts_of_which_the_second_is_trained() -> None:
    unread: set[str] = set()
    row = {"prompt": "The sky is", "completion": " blue.", "system": "s"}

    assert to_conversation(row, "continuation", unread).messages == [
        Message("text", "The sky is", trained=False),
        Message("text", " blue.", trained=True),
    ]
    assert unread == {"column system"}
    with pytest.raises(UnusableRowError, match=r"^completion is list, expected text$"):
        to_conversation({**row, "completion": ["b"]}, "continuation")


def test_sharegpt_speakers_become_roles() -> None:
    turns = [("system", "Be short."), ("human", "1 + 1?"), ("gpt", "2"), ("user", "2 + 2?")]
    row = {
        "conversations": [
            {"from": speaker, "value": text} for speaker, text in [*turns, ("model", "4")]
        ]
    }

    assert read(row) == [
        system("Be short."),
        user("1 + 1?"),
        assistant("2"),
        user("2 + 2?"),
        assistant("4"),
    ]


def test_conversations_may_hold_messages_and_have_a_system_column() -> None:
    row = {"system": "Be short.", "conversations": [user("a"), assistant("b")]}

    assert read(row) == [system("Be short."), user("a"), assistant("b")]


def test_a_plain_text_is_kept_to_the_character() -> None:
    assert read({"text": " Once\n\nupon a time "}) == [
        {"role": "text", "content": " Once\n\nupon a time "}
    ]


@pytest.mark.parametrize(
    ("row", "form"),
    [
        ({"instruction": "a", "output": "b", "text": "a rendered b"}, "alpaca"),
        ({"instruction": "a", "answer": "b", "prompt": "c"}, "alpaca"),
        ({"prompt": "a", "messages": [user("a"), assistant("b")]}, "messages"),
        ({"prompt": "a", "completion": "b"}, "prompt_completion"),
        ({"conversations": [], "messages": None}, "sharegpt"),
        ({"text": "a", "instruction": None, "output": None}, "text"),
        ({"prompt": "a", "completion": None}, "prompt_completion"),
    ],
)
def test_the_form_is_told_by_the_columns_that_hold_something(
    row: dict[str, Any], form: str
) -> None:
    assert form_of(row) == form


def test_a_form_that_is_stated_decides_between_two() -> None:
    row = {"messages": [user("a"), assistant("b")], "instruction": "c", "response": "d"}

    assert read(row, "alpaca") == [user("c"), assistant("d")]
    with pytest.raises(UnusableRowError) as caught:
        read(row)
    assert str(caught.value) == (
        "has columns of two forms, alpaca and messages; say which with the source's form: alpaca"
    )


KNOWN = (
    "system, developer, user, human, assistant, gpt, chatgpt, model, bot, chatbot, tool, "
    "function, observation, function_response, tool_response, function_call, tool_call"
)
ROLE_AND_CONTENT = "expected a list of role and content"
EXPECTED = (
    "expected messages, conversations, instruction with response (or output), prompt with "
    "completion, or text"
)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, f"has columns (none); {EXPECTED}"),
        (
            {"prompt": "a", "response": "b"},
            f"has columns prompt, response; {EXPECTED}; try the source's columns: "
            "{prompt: prompt, completion: response}",
        ),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c"},
            "has chosen and rejected answers: set train.objective to dpo, orpo or kto to learn "
            "from them",
        ),
        (
            {"prompt": "a", "completion": "b", "label": False},
            "has a label beside prompt and completion: set train.objective to kto to learn from it",
        ),
        ({"completion": "b"}, "has no prompt column"),
        ({"prompt": "a", "completion": None}, "completion is null, expected text"),
        (
            {"prompt": [user("a")], "completion": [user("b")]},
            "message 2 is a second user message in a row",
        ),
        ({"text": None}, "text is null, expected text"),
        ({"text": "a\x00"}, "text holds a NUL character"),
        (
            {"conversations": []},
            "conversations is an empty list, expected a list of from and value",
        ),
        ({"conversations": [{"from": "human"}]}, "message 1 has no from and value"),
        (
            {"conversations": [{"from": "narrator", "value": "a"}]},
            f"message 1 has role 'narrator'; known: {KNOWN}",
        ),
        (
            {"conversations": [{"from": ["gpt"], "value": "a"}]},
            f"message 1 has role ['gpt']; known: {KNOWN}",
        ),
        (
            {"conversations": [{"from": "gpt", "value": "a"}]},
            "message 1 is the assistant's but does not follow a user's",
        ),
        (
            {"instruction": "a", "system": 3, "output": "b"},
            "system is int, expected text",
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
        ({"messages": []}, f"messages is an empty list, {ROLE_AND_CONTENT}"),
        ({"messages": ["Hi"]}, "message 1 has no role and content"),
        ({"messages": [{"role": "user"}]}, "message 1 has no role and content"),
        (
            {"messages": [user("a"), {"role": "tool", "content": "b"}]},
            "message 2 is a tool's result but follows no message of the assistant",
        ),
        ({"messages": [{"role": None, "content": "b"}]}, "message 1 has no role and content"),
        (
            {"messages": [{"role": ["user"], "content": "b"}]},
            f"message 1 has role ['user']; known: {KNOWN}",
        ),
        (
            {"messages": [user("a"), assistant("b"), system("c")]},
            "ends with a system message; nothing to learn from",
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
            {"messages": [user([{"type": "image_url", "image_url": {}}]), assistant("b")]},
            "message 1 has a part of type 'image_url'; supported are parts of text: images, sound, "
            "video and files are not",
        ),
        (
            {"messages": [user({"text": "a"}), assistant("b")]},
            "message 1 is dict, expected text",
        ),
        ({"messages": [user([]), assistant("b")]}, "message 1 is null, expected text"),
    ],
)
def test_a_bad_row_is_refused_with_its_reason(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnusableRowError) as caught:
        read(row)

    assert str(caught.value) == reason
