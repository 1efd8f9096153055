"""Preference rows: every form that is read, every row that is refused, and no answer ever cut."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.configuration.schema import FinetuningConfig
from llm_engineering.data.conversation import UnusableRowError
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.data.preference import (
    TokenizedPreference,
    audit_preferences,
    prepare_preferences,
    to_preferences,
)
from llm_engineering.data.tokenization import IGNORED
from llm_engineering.errors import DataError
from llm_engineering.model.tokenizer import load_tokenizer, stop_token_ids

MakeConfig = Callable[..., FinetuningConfig]
WriteJsonl = Callable[[Path, Sequence[Any]], Path]
Prepare = Callable[..., PreparedDataset]

USER = {"role": "user", "content": "What is 1 + 1?"}
SYSTEM = {"role": "system", "content": "Be brief."}
TWO, THREE = {"role": "assistant", "content": "Two."}, {"role": "assistant", "content": "Three."}
PAIR = {"prompt": "What is 1 + 1?", "chosen": "Two.", "rejected": "Three."}


@pytest.fixture
def prepare(make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path) -> Prepare:
    """Prepare rows for an objective; the same rows are held out unless told."""

    def prepare_rows(
        rows: Sequence[Any],
        objective: str = "dpo",
        held_out: Sequence[Any] | None = None,
        **more: Any,
    ) -> PreparedDataset:
        train = write_jsonl(tmp_path / "pairs.jsonl", rows)
        other = write_jsonl(tmp_path / "held_out_pairs.jsonl", held_out or rows)
        config = make_config(
            {
                "train.objective": objective,
                "data.sources": [{"source": str(train)}],
                "data.held_out": {"source": str(other)},
                **more,
            }
        )
        return prepare_preferences(
            config.data,
            config.model,
            objective=config.train.objective,
            seed=config.run.seed,
            folder=tmp_path / "prepared",
        )

    return prepare_rows


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
    assert pair.prompt == [USER]
    assert pair.answers == {"chosen": "Two.", "rejected": "Three."}


def test_a_prompt_of_several_turns_is_kept() -> None:
    turns = [SYSTEM, USER, TWO, {"role": "user", "content": "Sure?"}]
    (pair,) = to_preferences({"chosen": [*turns, TWO], "rejected": [*turns, THREE]}, "orpo")
    assert pair.prompt == turns


@pytest.mark.parametrize("label", [True, 1, "TRUE", "1"])
def test_kto_reads_single_answers_and_pairs(label: Any) -> None:
    (one,) = to_preferences({"prompt": "Why?", "completion": "So.", "label": label}, "kto")
    assert (one.answers, one.label) == ({"completion": "So."}, True)
    good, bad = to_preferences(PAIR, "kto")
    assert (good.answers["completion"], good.label) == ("Two.", True)
    assert (bad.answers["completion"], bad.label) == ("Three.", False)


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
        ({**PAIR, "chosen": [SYSTEM, USER, TWO]}, "dpo", "chosen does not begin with the prompt"),
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


def test_bad_rows_are_named_by_file_and_line(prepare: Prepare) -> None:
    with pytest.raises(DataError) as caught:
        prepare([PAIR, "{not json", {**PAIR, "chosen": "Three."}], held_out=[PAIR])
    lines = str(caught.value).splitlines()
    assert [line.split("pairs.jsonl:")[1].split(":")[0] for line in lines[:2]] == ["2", "3"]
    assert lines[2].startswith("2 bad row(s).")


def test_a_prepared_pair_trains_both_answers_to_their_end(
    prepare: Prepare, make_config: MakeConfig
) -> None:
    dataset = prepare([PAIR])
    (row,) = dataset.split("train")
    tokenizer = load_tokenizer(make_config().model)
    assert tokenizer.decode(row["chosen_ids"]) == "Two.<|im_end|>"
    assert tokenizer.decode(row["rejected_ids"]) == "Three.<|im_end|>"
    prompt = tokenizer.apply_chat_template([USER], tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(row["prompt_ids"]) == prompt
    assert row["input_ids"] == row["prompt_ids"] + row["chosen_ids"]
    assert row["labels"] == [IGNORED] * len(row["prompt_ids"]) + row["chosen_ids"]
    assert json.loads(row["messages"]) == [USER, TWO]
    audit = dataset.summary.train
    assert (audit.rows, audit.stop_tokens, audit.truncated_rows) == (1, 2, 0)
    assert audit.trained_tokens == len(row["chosen_ids"]) + len(row["rejected_ids"])


def test_an_answer_is_never_cut_when_prompt_and_answer_exceed_the_limit(prepare: Prepare) -> None:
    """The handbook's fault: its answers were cut, some to no token at all, and nobody was told."""
    long = {**PAIR, "prompt": "Count. " * 200}
    with pytest.raises(
        DataError, match=r"pairs\.jsonl:2: prompt and answer of this row and 0 more"
    ):
        prepare([PAIR, long])

    dataset = prepare([PAIR, long], **{"data.max_truncated_share": 0.5})
    whole, cut = dataset.split("train")
    assert len(cut["prompt_ids"]) + max(len(cut["chosen_ids"]), len(cut["rejected_ids"])) == 128
    for name in ("chosen_ids", "rejected_ids"):
        assert cut[name] == whole[name]
    assert cut["prompt_ids"][-4:] == whole["prompt_ids"][-4:], "the turn's opening is kept"
    assert dataset.summary.train.truncated_rows == 1


def test_an_answer_that_leaves_no_room_for_its_prompt_is_a_bad_row(prepare: Prepare) -> None:
    with pytest.raises(
        DataError,
        match=r"pairs\.jsonl:1: chosen has \d+ tokens, which leaves no room for the prompt",
    ):
        prepare([{**PAIR, "chosen": "Count. " * 200}], **{"data.max_truncated_share": 1.0})


def test_the_audit_refuses_an_answer_without_its_end(make_config: MakeConfig) -> None:
    config = make_config()
    tokenizer = load_tokenizer(config.model)
    stop_ids = stop_token_ids(config.model, tokenizer)
    (stop,) = stop_ids
    row = TokenizedPreference([5, 6], {"chosen": [7, stop], "rejected": [8]}, truncated=False)
    with pytest.raises(DataError, match=r"p\.jsonl:1: 0 stop tokens are trained for 1 answer"):
        audit_preferences(
            [row], ["p.jsonl:1"], tokenizer, stop_ids=stop_ids, max_truncated_share=1.0
        )


def test_answers_to_one_prompt_are_held_out_together(prepare: Prepare) -> None:
    rows = [
        {"prompt": f"Question {number // 2}?", "chosen": f"Yes {number}.", "rejected": "No."}
        for number in range(40)
    ]
    dataset = prepare(rows, **{"data.held_out": {"fraction": 0.3}})
    prompts = {
        split: {json.loads(text)[0]["content"] for text in dataset.split(split)["messages"]}
        for split in ("train", "held_out")
    }
    assert prompts["train"]
    assert prompts["held_out"]
    assert not prompts["train"] & prompts["held_out"]


def test_kto_needs_good_answers_and_bad_ones(prepare: Prepare) -> None:
    good = {"prompt": "Why?", "completion": "So.", "label": True}
    with pytest.raises(DataError, match=r"data\.held_out: every row has label true"):
        prepare([PAIR], "kto", held_out=[good])
    dataset = prepare([PAIR], "kto")
    assert dataset.split("train")["label"][:] == [True, False]
