"""Preference rows: every form that is read, and every row that is refused."""

from __future__ import annotations

from typing import Any

import pytest

from llm_engineering.data.rows.preferences import Preference, to_preferences
from llm_engineering.data.rows.unusable import UnusableRowError

USER = {"role": "user", "content": "What is 1 + 1?"}
SYSTEM = {"role": "system", "content": "Be brief."}
TWO, THREE = {"role": "assistant", "content": "Two."}, {"role": "assistant", "content": "Three."}
PAIR = {"prompt": "What is 1 + 1?", "chosen": "Two.", "rejected": "Three."}


def said(preference: Preference) -> dict[str, str]:
    """The answers' texts."""
    return {name: answer.content for name, answer in preference.answers.items()}


@pytest.mark.parametrize(
    "row",
    [
        PAIR,
        {"prompt": [USER], "chosen": "Two.", "rejected": [THREE]},
        {"prompt": [USER], "chosen": [TWO], "rejected": [THREE]},
        {"chosen": [USER, TWO], "rejected": [USER, THREE]},
        {"prompt": "What is 1 + 1?", "chosen": [USER, TWO], "rejected": [USER, THREE]},
    ],
    ids=["text", "mixed", "messages", "implicit prompt", "prompt twice"],
)
def test_every_form_of_a_pair_is_the_same_pair(row: dict[str, Any]) -> None:
    (pair,) = to_preferences(row, "dpo")
    assert pair.prompt.to_dict()["messages"] == [USER]
    assert said(pair) == {"chosen": "Two.", "rejected": "Three."}


def test_a_prompt_of_several_turns_is_kept() -> None:
    turns = [SYSTEM, USER, TWO, {"role": "user", "content": "Sure?"}]
    (pair,) = to_preferences({"chosen": [*turns, TWO], "rejected": [*turns, THREE]}, "orpo")
    assert pair.prompt.to_dict()["messages"] == turns


@pytest.mark.parametrize("label", [True, 1, "TRUE", "1"])
def test_kto_reads_single_answers_and_pairs(label: Any) -> None:
    (one,) = to_preferences({"prompt": "Why?", "completion": "So.", "label": label}, "kto")
    assert (said(one), one.label) == ({"completion": "So."}, True)
    good, bad = to_preferences(PAIR, "kto")
    assert (said(good)["completion"], good.label) == ("Two.", True)
    assert (said(bad)["completion"], bad.label) == ("Three.", False)


@pytest.mark.parametrize(
    ("row", "objective", "reason"),
    [
        ({**PAIR, "rejected": "Two. "}, "dpo", "chosen and rejected are the same text"),
        ({**PAIR, "chosen": ""}, "dpo", "chosen is empty"),
        ({**PAIR, "rejected": None}, "dpo", "rejected is null, expected text or messages"),
        ({**PAIR, "rejected": []}, "dpo", "rejected is empty, expected text or messages"),
        ({**PAIR, "rejected": [USER]}, "dpo", "rejected does not end with an assistant message"),
        ({**PAIR, "prompt": " "}, "dpo", "prompt is empty"),
        (
            {**PAIR, "prompt": [USER, TWO]},
            "dpo",
            "prompt with chosen: message 3 is the assistant's",
        ),
        ({"chosen": "Two.", "rejected": "Three."}, "dpo", "has no prompt"),
        ({"chosen": [USER, TWO], "rejected": [SYSTEM, USER, THREE]}, "dpo", "the same prompt"),
        ({**PAIR, "chosen": [SYSTEM, USER, TWO]}, "dpo", "do not answer the same prompt"),
        ({**PAIR, "prompt": "Else?", "chosen": [USER, TWO]}, "dpo", "chosen does not begin with"),
        (
            {"instruction": "Why?", "response": "So."},
            "dpo",
            "dpo needs prompt, chosen and rejected",
        ),
        ({"prompt": "Why?", "completion": "So."}, "kto", "kto needs prompt, completion and label"),
        ({"prompt": "Why?", "completion": "So.", "label": "maybe"}, "kto", "label is 'maybe'"),
    ],
)
def test_an_unusable_row_says_why(row: dict[str, Any], objective: Any, reason: str) -> None:
    with pytest.raises(UnusableRowError, match=reason):
        to_preferences(row, objective)


TOOL = {"type": "function", "function": {"name": "now"}}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"type": "function", "function": {"name": "now", "arguments": "{}"}}],
}


def test_an_answer_may_be_a_call_and_tools_stand_beside() -> None:
    (pair,) = to_preferences(
        {"prompt": [USER], "chosen": [CALL], "rejected": [THREE], "tools": [TOOL]}, "dpo"
    )

    assert pair.prompt.tools == [TOOL]
    assert [one.name for one in pair.answers["chosen"].tool_calls] == ["now"]


def test_answers_with_the_same_text_and_another_call_differ() -> None:
    row = {"prompt": [USER], "chosen": [{**CALL, "content": "Two."}], "rejected": [TWO]}

    (pair,) = to_preferences(row, "dpo")

    assert pair.answers["chosen"] != pair.answers["rejected"]


def test_a_key_that_only_one_side_has_makes_no_other_prompt() -> None:
    filled = {**USER, "name": None, "tool_calls": None}
    row = {"prompt": [USER], "chosen": [filled, TWO], "rejected": [{**USER, "id": 3}, THREE]}
    unread: set[str] = set()

    (pair,) = to_preferences(row, "dpo", unread)

    assert pair.prompt.to_dict()["messages"] == [USER]
    assert unread == {"rejected[].id"}


@pytest.mark.parametrize("column", ["prompt", "question", "query", "instruction", "input"])
def test_earlier_turns_stand_before_what_is_asked(column: str) -> None:
    row = {column: "Sure?", "chosen": "Two.", "rejected": "Three."}
    turns = [["What is 1 + 1?", "Two."]]

    (pair,) = to_preferences({**row, "history": turns}, "dpo")

    assert pair.prompt.to_dict()["messages"] == [USER, TWO, {"role": "user", "content": "Sure?"}]


def test_a_system_prompt_stands_before_every_prompt() -> None:
    system = "Be brief."
    for row in (PAIR, {"chosen": [USER, TWO], "rejected": [USER, THREE]}):
        (pair,) = to_preferences({**row, "system": system}, "dpo")
        assert pair.prompt.to_dict()["messages"] == [SYSTEM, USER]
    with pytest.raises(UnusableRowError, match="has two different system prompts; keep one"):
        to_preferences({**PAIR, "prompt": [SYSTEM, USER], "system": "Else."}, "dpo")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"prompt": [USER], "chosen": [TWO, USER, TWO], "rejected": [THREE]},
            "chosen is 3 messages; an answer is one: leave out what follows the first",
        ),
        ({"messages": [USER], "rejected_response": "b"}, "has rejected_response, and no messages"),
        ({**PAIR, "images": ["a.jpg"]}, "has column images: images, sound and video are not"),
    ],
)
def test_a_pair_that_is_not_supported_says_why(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnusableRowError, match=reason):
        to_preferences(row, "dpo")


@pytest.mark.parametrize(
    ("label", "good"), [(0.0, False), (1.0, True), ("False", False), ("1.0", True)]
)
def test_a_label_may_be_a_number_of_a_table(label: Any, good: bool) -> None:
    numpy = pytest.importorskip("numpy")
    for value in (label, numpy.bool_(good)):
        row = {"prompt": "Why?", "completion": "So.", "label": value}
        assert to_preferences(row, "kto")[0].label is good


def test_a_mark_for_the_loss_means_nothing_in_a_preference_and_is_told() -> None:
    unread: set[str] = set()

    (pair,) = to_preferences({**PAIR, "chosen": [{**TWO, "weight": 1}]}, "dpo", unread)

    assert unread == {"chosen[].weight"}
    assert pair.answers["chosen"].trained is None
