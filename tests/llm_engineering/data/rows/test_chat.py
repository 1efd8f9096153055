"""Messages of every dialect: their order, their marks for the loss, their thoughts."""

from __future__ import annotations

from typing import Any

import pytest

from llm_engineering.data.rows.conversations import to_conversation
from llm_engineering.data.rows.message import Conversation, Message
from llm_engineering.data.rows.unusable import UnusableRowError

CALLS = [{"id": "c1", "type": "function", "function": {"name": "now", "arguments": "{}"}}]
TOOL = {"type": "function", "function": {"name": "now"}}


def message(role: str, content: Any = "x", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def read(*messages: dict[str, Any], **columns: Any) -> Conversation:
    return to_conversation({"messages": list(messages), **columns})


def refusal(*messages: dict[str, Any], **columns: Any) -> str:
    with pytest.raises(UnusableRowError) as caught:
        read(*messages, **columns)
    return str(caught.value)


USER, ANSWER = message("user"), message("assistant")
CALL = message("assistant", None, tool_calls=CALLS)
RESULT = message("tool", "12:00", tool_call_id="c1")


@pytest.mark.parametrize(
    "roles",
    [
        "system user assistant",
        "developer system user assistant",
        "user assistant system user assistant",
        "user system assistant",
        "user call tool assistant",
        "user call tool tool call tool assistant user assistant",
        "user call tool user assistant",
        "user assistant tool assistant",  # the call is in the assistant's text
        "user call",
    ],
)
def test_orders_that_a_template_may_render_are_read_as_they_stand(roles: str) -> None:
    given = [{"call": CALL, "tool": RESULT}.get(role, message(role)) for role in roles.split()]

    found = read(*given)

    expected = [{"call": "assistant"}.get(role, role) for role in roles.split()]
    assert [one.role for one in found.messages] == expected


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([ANSWER], "message 1 is the assistant's but does not follow a user's"),
        ([USER, CALL, ANSWER], "message 3 is the assistant's but does not follow a user's"),
        ([USER, CALL, RESULT], "ends with a tool message; nothing to learn from"),
        ([USER, RESULT, ANSWER], "message 2 is a tool's result but follows no message of the "),
        ([USER, ANSWER, message("system")], "ends with a system message; nothing to learn from"),
        ([USER, USER, ANSWER], "message 2 is a second user message in a row"),
        ([USER, message("assistant", "", tool_calls=[])], "message 2 is empty"),
        ([USER, message("assistant", None, reasoning="r")], "message 2 is null, expected text"),
        (
            [USER, {**CALL, "function_call": {"name": "now", "arguments": "{}"}}],
            "message 2 has tool_calls and a function_call; keep one",
        ),
        (
            [USER, message("assistant", reasoning="a", thinking="b")],
            "message 2 has two thoughts, reasoning and thinking; keep one",
        ),
        ([USER, message("tool_call", "now()")], "message 2 is not JSON: "),
        ([USER, CALL, message("tool", {"a": 1}), ANSWER], "message 3 is dict, expected text"),
    ],
)
def test_what_is_no_conversation_is_refused(given: list[dict[str, Any]], reason: str) -> None:
    assert refusal(*given).startswith(reason)


# --- what is said ------------------------------------------------------------------------------


def test_parts_of_text_are_joined_and_parts_of_thought_are_the_reasoning() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "One and one."}]},
        {"type": "text", "text": "Two", "image": None},
        ".",
    ]

    found = read(USER, message("assistant", parts)).messages[1]

    assert found == Message("assistant", "Two.", reasoning="One and one.")


@pytest.mark.parametrize("sort", ["image", "image_url", "input_audio", "video", "file", None])
def test_a_part_that_is_no_text_is_refused_by_its_type(sort: str | None) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": sort}]

    assert refusal(message("user", parts), ANSWER).startswith(
        f"message 1 has a part of type {sort!r}; supported are parts of text"
    )


def test_the_same_thought_under_two_names_is_one() -> None:
    found = read(USER, message("assistant", reasoning="a", reasoning_content="a")).messages[1]

    assert found.reasoning == "a"


def test_a_system_message_may_be_empty_and_a_tools_result_too() -> None:
    found = read(message("system", ""), USER, CALL, message("tool", ""), ANSWER)

    assert [one.content for one in found.messages] == ["", "x", "", "", "x"]


# --- marks for the loss ------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["weight", "train", "training", "loss", "loss_scale"])
@pytest.mark.parametrize(
    ("value", "trained"),
    [
        (0, False),
        (1, True),
        (0.0, False),
        (1.0, True),
        (False, False),
        ("true", True),
        (None, None),
    ],
)
def test_a_mark_says_whether_a_message_is_trained(key: str, value: Any, trained: Any) -> None:
    found = read(USER, {**ANSWER, key: value}, USER, ANSWER)

    assert [one.trained for one in found.messages] == [None, trained, None, None]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([USER, {**ANSWER, "weight": 0.5}], "message 2 has weight 0.5; supported are 0 and 1"),
        ([USER, {**ANSWER, "loss": "some"}], "message 2 has loss 'some'; supported are 0 and 1"),
        (
            [USER, {**ANSWER, "weight": 1, "train": False}],
            "message 2 has marks for the loss that differ (train: False)",
        ),
        (
            [{**USER, "train": True}, ANSWER],
            "message 1 (user) is marked to be trained, and only the assistant's can be",
        ),
        (
            [USER, {**ANSWER, "weight": 0}, USER, {**ANSWER, "train": False}],
            "no message of the assistant is trained",
        ),
    ],
)
def test_marks_that_cannot_be_followed_are_refused(
    given: list[dict[str, Any]], reason: str
) -> None:
    assert refusal(*given).startswith(reason)


def test_a_call_that_joins_a_message_shares_its_mark() -> None:
    call = message("tool_call", '{"name": "now", "arguments": {}}')

    joined = read(USER, {**ANSWER, "loss": True}, call).messages[1]

    assert joined.trained is True
    assert [one.name for one in joined.tool_calls] == ["now"]
    assert refusal(USER, {**ANSWER, "loss": True}, {**call, "loss": False}) == (
        "message 3 is trained and the message that it belongs to is not"
    )


# --- what stands beside ------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["system", "system_prompt"])
def test_a_system_prompt_beside_messages_comes_first_once(column: str) -> None:
    beside = read(USER, ANSWER, **{column: "x"})

    assert [one.role for one in beside.messages] == ["system", "user", "assistant"]
    assert read(message("system"), USER, ANSWER, **{column: "x"}) == beside
    assert refusal(message("system", "y"), USER, ANSWER, **{column: "x"}) == (
        "has two different system prompts; keep one"
    )


def test_a_system_prompt_beside_a_prompt_and_its_completion() -> None:
    found = to_conversation({"system": "s", "prompt": "a", "completion": "b"})

    assert [one.content for one in found.messages] == ["s", "a", "b"]


def test_tools_may_stand_in_a_system_message_and_once_only() -> None:
    system = message("system", tools=[TOOL])

    assert read(system, USER, ANSWER).tools == [TOOL]
    assert read(system, USER, ANSWER, tools=[TOOL]).tools == [TOOL]
    assert "names other tools" in refusal(system, USER, ANSWER, tools=[{"name": "else"}])


@pytest.mark.parametrize("label", [True, 0, 1.0, "False"])
def test_a_judged_answer_is_no_example_to_learn(label: Any) -> None:
    assert refusal(USER, ANSWER, label=label) == (
        "has a label beside a row of messages: set train.objective to kto to learn from it"
    )


def test_a_label_that_judges_nothing_is_only_not_read() -> None:
    unread: set[str] = set()

    to_conversation({"messages": [USER, ANSWER], "label": "poetry"}, None, unread)

    assert unread == {"column label"}
