"""Preparing preferences: from files to two audited splits; what repeats, contradicts and leaks."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.data.prepare import prepare_data
from llm_engineering.data.summary import Repeats
from llm_engineering.data.tokens.tokenization import IGNORED
from llm_engineering.errors import DataError
from llm_engineering.model.tokenizer import load_tokenizer

MakeConfig = Callable[..., FinetuningConfig]
WriteJsonl = Callable[[Path, Sequence[Any]], Path]
Prepare = Callable[..., PreparedDataset]

USER, TWO = {"role": "user", "content": "What is 1 + 1?"}, {"role": "assistant", "content": "Two."}
PAIR = {"prompt": "What is 1 + 1?", "chosen": "Two.", "rejected": "Three."}
OTHER = {"prompt": "What is 2 + 2?", "chosen": "Four.", "rejected": "Five."}
SWAPPED = {**PAIR, "chosen": "Three.", "rejected": "Two."}
UNSEEN = {"prompt": "And 3 + 3?", "chosen": "Six.", "rejected": "Seven."}
GOOD = {"prompt": "Why?", "completion": "So.", "label": True}
BAD = {"prompt": "Why?", "completion": "Not so.", "label": False}


@pytest.fixture
def prepare(make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path) -> Prepare:
    """Prepare rows for an objective; another row is held out unless told."""
    folders = iter(tmp_path / "prepared" / str(number) for number in range(100))

    def prepare_rows(
        rows: Sequence[Any],
        objective: str = "dpo",
        held_out: Sequence[Any] = (UNSEEN,),
        **more: Any,
    ) -> PreparedDataset:
        train = write_jsonl(tmp_path / "pairs.jsonl", rows)
        other = write_jsonl(tmp_path / "held_out_pairs.jsonl", held_out)
        config = make_config(
            {
                "train.objective": objective,
                "data.sources": [{"source": str(train)}],
                "data.held_out": {"source": str(other)},
                **more,
            }
        )
        return prepare_data(
            config.data,
            config.model,
            objective=config.train.objective,
            folder=next(folders),
            trains=False,
        )

    return prepare_rows


def line_numbers(prepared: PreparedDataset, split: str = "train") -> list[int]:
    return [int(origin.rpartition(":")[2]) for origin in prepared.split(split)["origin"]]


def pairs(found: Repeats | None) -> list[str]:
    """What was found, with the files' names alone."""
    assert found is not None
    return [" ".join(part.rpartition("/")[2] for part in line.split()) for line in found.first]


def test_bad_rows_are_named_by_file_and_line(prepare: Prepare) -> None:
    with pytest.raises(DataError) as caught:
        prepare([PAIR, "{not json", {**PAIR, "chosen": "Three."}])
    lines = str(caught.value).splitlines()
    assert [line.split("pairs.jsonl:")[1].split(":")[0] for line in lines[:2]] == ["2", "3"]
    assert lines[2].startswith("2 bad row(s).")


def test_a_prepared_pair_trains_both_answers_to_their_end(
    prepare: Prepare, make_config: MakeConfig
) -> None:
    dataset = prepare([PAIR])
    (row,) = dataset.split("train")
    tokenizer = load_tokenizer(make_config().model, trains=False)
    assert tokenizer.decode(row["chosen_ids"]) == "Two.<|im_end|>"
    assert tokenizer.decode(row["rejected_ids"]) == "Three.<|im_end|>"
    prompt = tokenizer.apply_chat_template([USER], tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(row["prompt_ids"]) == prompt
    assert row["input_ids"] == row["prompt_ids"] + row["chosen_ids"]
    assert row["labels"] == [IGNORED] * len(row["prompt_ids"]) + row["chosen_ids"]
    assert json.loads(row["conversation"]) == {"messages": [USER, TWO]}
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
    long = {**PAIR, "chosen": "Count. " * 200}
    says = r"pairs\.jsonl:1: chosen has \d+ tokens, which leaves no room for the prompt"
    with pytest.raises(DataError, match=says):
        prepare([long], **{"data.max_truncated_share": 1.0})

    dataset = prepare([long, PAIR], **{"data.on_bad_rows": "skip"})
    assert line_numbers(dataset) == [2]
    assert dataset.summary.bad_row_count == 1
    assert [(one.rows, one.used) for one in dataset.summary.sources] == [(2, 1), (1, 1)]


def test_kto_needs_good_answers_and_bad_ones(prepare: Prepare) -> None:
    with pytest.raises(DataError, match=r"data\.held_out: every row has label true"):
        prepare([PAIR], "kto", held_out=[GOOD])
    dataset = prepare([PAIR], "kto")
    assert dataset.split("train")["label"][:] == [True, False]
    assert dataset.summary.train.rows == 2
    assert [(one.rows, one.used) for one in dataset.summary.sources] == [(1, 1), (1, 1)]


# --- held-out rows -----------------------------------------------------------------------------


def test_answers_to_one_prompt_are_held_out_together(prepare: Prepare) -> None:
    rows = [
        {"prompt": f"Question {number // 2}?", "chosen": f"Yes {number}.", "rejected": "No."}
        for number in range(40)
    ]
    dataset = prepare(rows, **{"data.held_out": {"fraction": 0.3}})
    prompts = {
        split: {
            json.loads(text)["messages"][0]["content"]
            for text in dataset.split(split)["conversation"]
        }
        for split in ("train", "held_out")
    }
    assert prompts["train"]
    assert prompts["held_out"]
    assert not prompts["train"] & prompts["held_out"]
    assert dataset.summary.leaks == Repeats()


def test_rows_that_share_a_group_are_on_one_side(prepare: Prepare) -> None:
    rows = [{**PAIR, "prompt": f"Question {n}?", "author": n % 8} for n in range(64)]
    dataset = prepare(rows, **{"data.held_out": {"fraction": 0.4, "group": "author"}})

    train, held_out = (
        {line % 8 for line in line_numbers(dataset, split)} for split in ("train", "held_out")
    )
    assert train
    assert held_out
    assert not train & held_out


def test_weights_draw_a_share_of_each_source(
    prepare: Prepare, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    files = [
        write_jsonl(
            tmp_path / f"{name}.jsonl",
            [{**PAIR, "prompt": f"{name} {number}?"} for number in range(count)],
        )
        for name, count in (("first", 40), ("second", 10))
    ]
    weighed = [
        {"source": str(path), "weight": weight}
        for path, weight in zip(files, (0.6, 0.4), strict=True)
    ]

    dataset = prepare([PAIR], **{"data.sources": weighed})

    assert [(one.rows, one.used) for one in dataset.summary.sources][:2] == [(40, 15), (10, 10)]


def test_a_data_set_of_the_hub_is_held_out_in_its_revision(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    def load(source: str, *, split: str, revision: str, **_: Any) -> list[dict[str, Any]]:
        return [{**UNSEEN, "chosen": f"{source} {split} {revision}"}]

    monkeypatch.setattr(datasets, "load_dataset", load)
    held_out = {"source": "acme/pairs", "split": "dev", "revision": "v2"}

    dataset = prepare([PAIR], **{"data.held_out": held_out})

    (conversation,) = dataset.split("held_out")["conversation"]
    assert json.loads(conversation)["messages"][-1]["content"] == "acme/pairs dev v2"


# --- repeated rows -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "rows", "repeats"),
    [
        ("dpo", [PAIR, OTHER, PAIR], ["pairs.jsonl:3 = pairs.jsonl:1"]),
        ("dpo", [PAIR, {"chosen": [USER, TWO], "rejected": [USER, {**TWO, "content": "3"}]}], []),
        (
            "orpo",
            [PAIR, {**PAIR, "prompt": [USER], "chosen": [TWO]}],
            ["pairs.jsonl:2 = pairs.jsonl:1"],
        ),
        ("kto", [GOOD, BAD, {**GOOD, "label": 1}], ["pairs.jsonl:3 = pairs.jsonl:1"]),
        ("kto", [GOOD, BAD, {**GOOD, "label": False}], []),
    ],
    ids=["equal", "another answer", "another form", "equal label", "another label"],
)
def test_equal_preferences_are_repeats(
    objective: str, rows: list[Any], repeats: list[str], prepare: Prepare
) -> None:
    dataset = prepare(rows, objective)

    assert pairs(dataset.summary.duplicates) == repeats
    assert dataset.summary.figures["duplicate_rows"] == len(repeats)
    assert line_numbers(dataset) == list(range(1, len(rows) + 1)), "kept, unless told"


def test_repeated_preferences_are_dropped_or_refused_where_asked(prepare: Prepare) -> None:
    dataset = prepare([PAIR, OTHER, PAIR], **{"data.on_duplicates": "drop"})
    assert line_numbers(dataset) == [1, 2]
    assert dataset.summary.duplicates == Repeats(
        equal=1, dropped=True, first=dataset.summary.duplicates.first
    )

    with pytest.raises(DataError, match="1 of 3 training rows repeat an earlier one"):
        prepare([PAIR, OTHER, PAIR], **{"data.on_duplicates": "error"})


LONG = "Tell me at some length what the quick brown fox did when it met the lazy dog at night"
GREEN = LONG.replace("brown", "green")
TALE = "The fox jumped over the dog, ran through the old dark forest and was never seen again."
LONGER = TALE + " The dog slept."
MORAL = "Foxes are animals that live in many places of the world and eat nearly everything."


@pytest.mark.parametrize(
    ("objective", "second", "near"),
    [
        ("dpo", {"prompt": GREEN, "chosen": LONGER, "rejected": MORAL}, True),
        ("dpo", {"prompt": GREEN, "chosen": MORAL, "rejected": TALE}, False),
        ("dpo", {"prompt": LONG, "chosen": "It ran.", "rejected": "It hid."}, False),
        ("dpo", {"prompt": "Summarise.", "chosen": LONGER, "rejected": MORAL}, False),
        ("kto", {"prompt": GREEN, "completion": LONGER, "label": True}, True),
        ("kto", {"prompt": GREEN, "completion": LONGER, "label": False}, False),
    ],
    ids=["near", "swapped", "other answers", "another prompt", "kto near", "another label"],
)
def test_near_preferences_are_repeats_where_asked(
    objective: str, second: dict[str, Any], near: bool, prepare: Prepare
) -> None:
    pair = {"prompt": LONG, "chosen": TALE, "rejected": MORAL}
    one = {"prompt": LONG, "completion": TALE, "label": True}
    rows = [one, BAD, second] if objective == "kto" else [pair, second]
    settings = {"data.on_duplicates": "drop", "model.max_seq_length": 256}

    assert len(line_numbers(prepare(rows, objective, **settings))) == len(rows)
    dataset = prepare(rows, objective, **settings, **{"data.near_duplicates": 0.7})

    last = len(rows)
    assert pairs(dataset.summary.duplicates) == (
        [f"pairs.jsonl:{last} ~ pairs.jsonl:1"] if near else []
    )
    assert len(line_numbers(dataset)) == last - near


# --- contradictions ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "rows", "first"),
    [
        ("dpo", [PAIR, OTHER, SWAPPED], [1, 3]),
        ("dpo", [PAIR, {**SWAPPED, "prompt": "What is 1 + 2?"}], []),
        ("dpo", [PAIR, {**SWAPPED, "rejected": "Four."}], []),
        ("kto", [GOOD, BAD, {**GOOD, "label": False}], [1, 3]),
        ("kto", [GOOD, {**GOOD, "completion": "Not so.", "label": False}], []),
        ("kto", [PAIR, {**SWAPPED, "rejected": "Four."}], [1, 2]),
    ],
    ids=["swapped", "other prompt", "other answer", "both labels", "two answers", "of two pairs"],
)
def test_opposite_preferences_are_named_and_kept_with_a_warning(
    objective: str,
    rows: list[Any],
    first: list[int],
    prepare: Prepare,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="llm_engineering"):
        dataset = prepare(rows, objective, **{"data.near_duplicates": 0.8})

    lines = (
        [f"pairs.jsonl:{a} != pairs.jsonl:{b}" for a, b in (first, first[::-1])] if first else []
    )
    assert pairs(dataset.summary.contradictions) == lines
    assert dataset.summary.figures["contradictory_rows"] == len(lines)
    assert dataset.summary.duplicates == Repeats(), "the opposite is no repetition"
    assert ("say the opposite of another" in caplog.text) is bool(first)
    assert sorted(set(line_numbers(dataset))) == list(range(1, len(rows) + 1))


def test_opposite_preferences_are_dropped_or_refused_where_asked(prepare: Prepare) -> None:
    rows = [PAIR, OTHER, SWAPPED, PAIR]
    dataset = prepare(rows, **{"data.on_contradictions": "drop"})
    assert line_numbers(dataset) == [2]
    assert [one.used for one in dataset.summary.sources] == [1, 1]
    assert dataset.summary.contradictions is not None
    assert (dataset.summary.contradictions.count, dataset.summary.contradictions.dropped) == (
        3,
        True,
    )

    with pytest.raises(DataError) as caught:
        prepare(rows, **{"data.on_contradictions": "error"})
    assert str(caught.value).splitlines()[-1] == (
        "3 of 4 training rows say the opposite of another. Remove them: data.on_contradictions: "
        "drop leaves out both"
    )


# --- leaks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["warn", "drop", "error"])
def test_a_prompt_that_is_held_out_too_leaks_whatever_its_answers(
    what: str, prepare: Prepare
) -> None:
    held_out = [{**UNSEEN, "prompt": "WHAT  is 1 + 1?"}]
    settings = {"data.on_leaks": what}
    if what == "error":
        with pytest.raises(DataError) as caught:
            prepare([OTHER, PAIR], held_out=held_out, **settings)
        assert (
            str(caught.value)
            .splitlines()[-1]
            .startswith(
                "1 of 2 training rows begin with a prompt that is held out too. Remove them: "
            )
        )
        return
    dataset = prepare([OTHER, PAIR], held_out=held_out, **settings)
    assert pairs(dataset.summary.leaks) == ["pairs.jsonl:2 = held_out_pairs.jsonl:1"]
    assert dataset.summary.figures["leaked_rows"] == 1
    assert line_numbers(dataset) == ([1] if what == "drop" else [1, 2])


def test_the_same_answers_to_another_prompt_are_no_leak(prepare: Prepare) -> None:
    dataset = prepare([PAIR], held_out=[{**PAIR, "prompt": "What is 3 - 1?"}])
    assert dataset.summary.leaks == Repeats()


def test_a_prompt_that_a_group_tears_apart_leaks(prepare: Prepare) -> None:
    rows = [{**PAIR, "author": number} for number in range(16)]
    dataset = prepare(rows, **{"data.held_out": {"fraction": 0.4, "group": "author"}})

    assert dataset.summary.leaks is not None
    assert dataset.summary.leaks.count == len(line_numbers(dataset)) > 0


def test_a_prompt_near_a_held_out_one_leaks_where_asked(prepare: Prepare) -> None:
    rows = [{**PAIR, "prompt": LONG}, OTHER]
    held_out = [{**UNSEEN, "prompt": GREEN}]

    assert prepare(rows, held_out=held_out).summary.leaks == Repeats()
    dataset = prepare(
        rows, held_out=held_out, **{"data.near_duplicates": 0.7, "data.on_leaks": "drop"}
    )

    assert pairs(dataset.summary.leaks) == ["pairs.jsonl:1 ~ held_out_pairs.jsonl:1"]
    assert line_numbers(dataset) == [2]
