"""What a row is compared by: whole rows as they stand, first prompts but for case and spaces."""

from __future__ import annotations

from dataclasses import replace

import numpy
import pytest

from llm_engineering.data.rows.keys import (
    answers_key,
    conversation_key,
    first_prompt,
    plain_text,
    prompt_key,
    spread,
)
from llm_engineering.data.rows.message import Conversation, Message, ToolCall

SYSTEM, USER = Message("system", "Be brief."), Message("user", "The quick fox")
YES, NO = Message("assistant", "Yes."), Message("assistant", "No.")
CALL = Message("assistant", "", tool_calls=(ToolCall("look", {"at": "Größe", "n": 1}),))
RESULT = Message("tool", "It is 4.")


def said(text: str) -> Conversation:
    return Conversation([Message("user", text), YES])


@pytest.mark.parametrize(
    ("text", "same"),
    [("the  QUICK\n fox ", True), ("The quick fox", True), ("The quick foxes", False)],
)
def test_case_and_spaces_do_not_make_another_prompt(text: str, same: bool) -> None:
    assert (prompt_key(said("The quick fox")) == prompt_key(said(text))) is same
    assert (conversation_key(said("The quick fox")) == conversation_key(said(text))) is (
        text == "The quick fox"
    )


@pytest.mark.parametrize(
    ("messages", "prompt"),
    [
        ([USER, YES], 1),
        ([SYSTEM, USER, YES, USER, NO], 2),
        ([NO, USER, YES], 2),  # a greeting answers nothing
        ([USER, CALL, RESULT, YES], 1),
        ([Message("text", "Once upon a time")], 1),
        ([Message("text", "Once", trained=False), Message("text", "upon", trained=True)], 1),
        ([Message("text", "Once"), Message("text", "upon", trained=True)], 2),
        ([SYSTEM, USER], 2),
        ([SYSTEM, YES], 2),
    ],
)
def test_the_first_prompt_ends_where_the_first_answer_begins(
    messages: list[Message], prompt: int
) -> None:
    assert list(first_prompt(Conversation(messages))) == messages[:prompt]


def test_answers_and_what_follows_them_do_not_make_another_prompt() -> None:
    keys = {
        prompt_key(Conversation(messages))
        for messages in ([SYSTEM, USER, YES], [SYSTEM, USER, NO], [SYSTEM, USER, YES, USER, NO])
    }

    assert len(keys) == 1
    assert prompt_key(Conversation([USER, YES])) not in keys  # the system prompt counts


@pytest.mark.parametrize(
    "other",
    [
        Conversation([USER, NO]),
        Conversation([USER, replace(YES, reasoning="Hm.")]),
        Conversation([USER, replace(YES, trained=False)]),
        Conversation([USER, replace(YES, tool_calls=CALL.tool_calls)]),
        Conversation([USER, YES], tools=[{"name": "look"}]),
        Conversation([replace(USER, name="Ann"), YES]),
    ],
)
def test_rows_are_equal_in_all_or_not_at_all(other: Conversation) -> None:
    assert conversation_key(Conversation([USER, YES])) == conversation_key(
        Conversation([USER, YES])
    )
    assert conversation_key(Conversation([USER, YES])) != conversation_key(other)


def test_thoughts_and_calls_are_said() -> None:
    thought = replace(YES, reasoning="Hm  HM.")

    assert plain_text([thought, CALL]) == 'hm hm. yes. look {"at": "grösse", "n": 1}'


def test_spread_keys_are_even_and_of_their_seed() -> None:
    keys = numpy.arange(4000, dtype="uint64")
    first, second = (spread(keys, seed) / 2**64 for seed in (0, 1))

    for numbers in (first, second):
        counts, _ = numpy.histogram(numbers, bins=10, range=(0, 1))
        assert counts.min() > 400 - 4 * 20  # standard error: about 20
        assert counts.max() < 400 + 4 * 20
    assert abs(numpy.corrcoef(first, second)[0, 1]) < 0.07  # about four standard errors
    assert len(numpy.unique(spread(keys, 0))) == 4000


def test_keys_are_the_same_on_every_host_and_with_every_release() -> None:
    # What was held out, and what was drawn by weight, must stay so.
    prompt = Conversation([Message("user", "Größe?")])
    a, b = Message("assistant", "a"), Message("assistant", "b")

    assert prompt_key(prompt) == 3983039109355018699
    assert conversation_key(prompt) == 13511142539972317020
    assert answers_key(prompt, [b, a]) == answers_key(prompt, [a, b]) == 2606659777870831709
    assert spread(numpy.array([1, 2], dtype="uint64"), 3).tolist() == [
        17027085370592858547,
        2554043094958247610,
    ]
