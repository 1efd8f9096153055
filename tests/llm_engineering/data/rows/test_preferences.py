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
