"""Preferences in tokens: no answer is ever cut, each trains its end, and kto gets both labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.rows.message import Conversation, Message
from llm_engineering.data.rows.preferences import Preference
from llm_engineering.data.rows.unusable import UnusableRow
from llm_engineering.data.tokens.preferences import (
    PreferenceAuditor,
    TokenizedPreference,
    tokenize_preferences,
)
from llm_engineering.model.tokenizer import load_tokenizer, stop_token_ids

MakeConfig = Callable[..., FinetuningConfig]

ASKED = Conversation([Message("user", "Why?")])
ANSWERS = {"chosen": Message("assistant", "So."), "rejected": Message("assistant", "Not so.")}


@pytest.fixture
def tokenizer(make_config: MakeConfig) -> Any:
    return load_tokenizer(make_config().model, trains=False)


@pytest.fixture
def stop_ids(make_config: MakeConfig, tokenizer: Any) -> frozenset[int]:
    return stop_token_ids(make_config().model, tokenizer)


def test_each_preference_is_told_apart_from_the_unusable_one_between(
    tokenizer: Any, stop_ids: frozenset[int]
) -> None:
    stopped = ANSWERS | {"rejected": Message("assistant", "Not<|im_end|>so.")}
    turns = Conversation([*ASKED.messages, ANSWERS["chosen"], Message("user", "Sure?")])
    judged = {"completion": Message("assistant", "Yes.")}

    first, refused, last = tokenize_preferences(
        [Preference(ASKED, ANSWERS), Preference(ASKED, stopped), Preference(turns, judged, True)],
        tokenizer,
        max_length=128,
        stop_ids=stop_ids,
    )

    assert isinstance(first, TokenizedPreference)
    assert {name: tokenizer.decode(ids) for name, ids in first.answer_ids.items()} == {
        "chosen": "So.<|im_end|>",
        "rejected": "Not so.<|im_end|>",
    }
    assert isinstance(refused, UnusableRow)
    assert refused.reason.startswith("rejected: the answer's text holds '<|im_end|>'")
    assert isinstance(last, TokenizedPreference)
    assert tokenizer.decode(last.prompt_ids) == tokenizer.apply_chat_template(
        [one.to_template() for one in turns.messages], tokenize=False, add_generation_prompt=True
    )
    assert (last.label, first.label) == (True, None)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (
            [{"chosen": [7, 1], "rejected": [8]}],
            "p.jsonl:1: 0 stop tokens are trained for 1 answer(s)",
        ),
        (
            [{"chosen": [7, 1], "rejected": []}],
            "p.jsonl:1: no token of this row is trained",
        ),
    ],
)
def test_an_answer_without_its_end_is_refused(
    rows: list[dict[str, list[int]]], reason: str, tokenizer: Any
) -> None:
    auditor = PreferenceAuditor("train", tokenizer, stop_ids=frozenset({1}))
    for number, answer_ids in enumerate(rows, start=1):
        auditor.add(f"p.jsonl:{number}", TokenizedPreference([5, 6], answer_ids, truncated=False))

    (refusal,) = auditor.refusals(1.0)

    assert refusal.startswith(reason)


@pytest.mark.parametrize(
    ("split", "labels", "refusals"),
    [
        ("train", [True, False], []),
        ("train", [None, None], []),
        (
            "held_out",
            [False, False],
            ["data.held_out: every row has label false; kto learns from good answers and bad ones"],
        ),
        ("held_out", [], []),
    ],
)
def test_labels_are_of_both_kinds(
    split: str, labels: list[bool | None], refusals: list[str], tokenizer: Any
) -> None:
    auditor = PreferenceAuditor(split, tokenizer, stop_ids=frozenset({1}))
    for label in labels:
        tokens = TokenizedPreference([5], {"completion": [7, 1]}, truncated=False, label=label)
        auditor.add("p.jsonl:1", tokens)

    assert auditor.refusals(1.0) == refusals
    assert auditor.audit().rows == len(labels)
