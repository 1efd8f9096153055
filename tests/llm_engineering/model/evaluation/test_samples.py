"""Which prompts are answered before and after, and what they are answered from."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_engineering.data.prepare import prepare_data
from llm_engineering.errors import DataError
from llm_engineering.model.evaluation.samples import (
    choose_prompts,
    require_tool_calls,
    with_references,
)
from llm_engineering.model.tokenizer import load_tokenizer

TURNS = [("user", "1 + 1?"), ("assistant", "Two."), ("user", "2 + 2?"), ("assistant", "Four.")]
CHAT = {"messages": [{"role": role, "content": text} for role, text in TURNS]}
FIRST = "<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n"
SECOND = f"{FIRST}Two.<|im_end|>\n<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n"
TEXT = "Once upon a time there was a small model that learned to stop."


@pytest.mark.parametrize(
    ("row", "loss_on", "prompt", "reference", "tokens"),
    [
        (CHAT, "completion", "1 + 1?", "Two.", FIRST),
        (CHAT, "last_turn", "2 + 2?", "Four.", SECOND),
        (CHAT, "everything", "1 + 1?", "Two.", FIRST),
    ],
)
def test_a_prompt_ends_where_the_first_trained_answer_begins(
    row: Any,
    loss_on: str,
    prompt: str,
    reference: str,
    tokens: str,
    make_config: Any,
    write_jsonl: Any,
    tmp_path: Path,
) -> None:
    (found,), tokenizer = prompts_of(row, loss_on, make_config, write_jsonl, tmp_path)

    assert (found.text, found.reference) == (prompt, reference)
    assert tokenizer.decode(found.input_ids) == tokens


def test_a_plain_text_is_continued(make_config: Any, write_jsonl: Any, tmp_path: Path) -> None:
    (found,), tokenizer = prompts_of(
        {"text": TEXT}, "completion", make_config, write_jsonl, tmp_path
    )

    assert found.text
    assert found.reference
    assert found.text + found.reference == TEXT
    assert tokenizer.decode(found.input_ids) == found.text


def prompts_of(
    row: Any, loss_on: str, make_config: Any, write_jsonl: Any, tmp_path: Path
) -> tuple[Any, Any]:
    path = write_jsonl(tmp_path / "rows.jsonl", [row])
    config = make_config({"data.held_out": {"source": str(path)}, "data.loss_on": loss_on})
    prepared = prepare_data(config.data, config.model, folder=tmp_path / "data")
    tokenizer = load_tokenizer(config.model)
    return choose_prompts(prepared.split("held_out"), 1, tokenizer), tokenizer


def test_rows_without_what_tool_call_compares_are_named() -> None:
    import datasets

    tools = [{"type": "function", "function": {"name": "add"}}]
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}

    def row(number: int, **changes: Any) -> dict[str, Any]:
        answer = {"role": "assistant", "content": "", **changes.pop("answer", {})}
        messages = [{"role": "user", "content": "Add."}, answer]
        text = json.dumps({"messages": messages, **changes})
        return {
            "origin": f"a.jsonl:{number}",
            "conversation": text,
            "answer": 1,
            "prompt_tokens": 1,
        }

    offered = [row(1, tools=tools), row(2, answer={"tool_calls": [call]}), row(3, tools=tools)]

    def prepared(rows: Any) -> Any:
        return SimpleNamespace(split=lambda name: datasets.Dataset.from_list(rows))

    require_tool_calls(prepared(offered), 3)
    plain = prepared([*offered, row(4)])
    require_tool_calls(plain, 0)
    with pytest.raises(DataError, match=r"a.jsonl:4: has no tools, .* tool_call compares"):
        require_tool_calls(plain, 4)


def test_of_judged_answers_the_good_ones_are_references() -> None:
    import datasets

    judged = datasets.Dataset.from_dict({"label": [True, False, True], "origin": ["a", "b", "c"]})
    assert with_references(judged)["origin"] == ["a", "c"]
    others = datasets.Dataset.from_dict({"origin": ["a", "b"]})
    assert with_references(others) is others
