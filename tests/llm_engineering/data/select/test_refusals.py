"""What is told of bad rows and of splits without a row."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.errors import DataError

MakeConfig = Callable[..., FinetuningConfig]
WriteJsonl = Callable[[Path, Sequence[Any]], Path]
Prepare = Callable[[FinetuningConfig], PreparedDataset]

GOOD = {"instruction": "What is 1 + 1?", "response": "Two."}
OTHER = {"instruction": "What is 2 + 2?", "response": "Four."}
ADVICE = "Mend them, or set data.on_bad_rows: skip to train without them (the report counts them)"


def refusal(prepare: Prepare, config: FinetuningConfig) -> str:
    with pytest.raises(DataError) as caught:
        prepare(config)
    return str(caught.value)


def sources(*paths: Path, **settings: Any) -> dict[str, Any]:
    return {"data.sources": [{"source": str(path), **settings} for path in paths]}


def line_numbers(prepared: PreparedDataset, split: str) -> list[int]:
    return [int(origin.rpartition(":")[2]) for origin in prepared.split(split)["origin"]]


def test_all_bad_rows_of_all_files_are_listed(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    empty = {"instruction": "a", "response": " "}
    first = write_jsonl(tmp_path / "first.jsonl", [GOOD, empty, "{", GOOD])
    second = tmp_path / "second.csv"
    second.write_text("instruction,response\na,b\nc\n")
    held_out = write_jsonl(tmp_path / "held_out.jsonl", [GOOD, {"question": "a"}])
    config = make_config({**sources(first, second), "data.held_out.source": str(held_out)})

    assert refusal(prepare, config).splitlines() == [
        f"{first}:2: response is empty",
        f"{first}:3: is not JSON: Expecting property name enclosed in double quotes at column 2",
        f"{second}:3: has no value for column response",
        f"{held_out}:2: has columns question; expected messages, conversations, instruction with "
        "response (or output), prompt with completion, or text",
        f"4 bad row(s). {ADVICE}",
    ]


def test_twenty_bad_rows_are_listed_and_the_rest_counted(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [GOOD] + [{}] * 23)

    lines = refusal(prepare, make_config(sources(path))).splitlines()

    assert len(lines) == 22
    assert lines[0].startswith(f"{path}:2: has columns (none)")
    assert lines[19].startswith(f"{path}:21: has columns (none)")
    assert lines[20:] == ["... and 3 more", f"23 bad row(s). {ADVICE}"]


def test_skipped_rows_are_counted_and_the_others_trained(
    prepare: Prepare,
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stop = {"instruction": "a", "response": "b<|im_end|>c"}
    path = write_jsonl(tmp_path / "rows.jsonl", [GOOD, {"instruction": "a"}, stop, OTHER])
    no_answer = f"{path}:2: has an instruction but neither a response nor an output column"
    stops = (
        f"{path}:3: the answer's text holds '<|im_end|>', which ends a turn: "
        "the model would learn to stop in the middle"
    )

    with caplog.at_level(logging.WARNING, logger="llm_engineering"):
        prepared = prepare(make_config({**sources(path), "data.on_bad_rows": "skip"}))

    assert line_numbers(prepared, "train") == [1, 4]
    assert prepared.summary.bad_rows == [no_answer, stops]
    assert prepared.summary.sources[0].rows == 4
    assert prepared.summary.train.rows == 2
    # Those found on reading and those found on tokenizing are told together.
    assert [record.message for record in caplog.records] == [
        f"skipping 2 bad row(s):\n{no_answer}\n{stops}"
    ]


def test_a_weighed_source_without_a_usable_row_is_named(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    first = write_jsonl(tmp_path / "first.jsonl", [GOOD, OTHER])
    second = write_jsonl(tmp_path / "second.jsonl", [{}, {}, {}])
    config = make_config({**sources(first, second, weight=0.5), "data.on_bad_rows": "skip"})
    both = make_config({**sources(second, second, weight=0.5), "data.on_bad_rows": "skip"})

    assert refusal(prepare, config) == (
        f"data.sources.1 ({second}): of 3 rows none is used, and its weight 0.5 asks for a share: "
        "mend the rows, or leave the source out"
    )
    assert refusal(prepare, both).startswith("data.sources: no usable row is left to train on in ")


def test_a_source_without_a_usable_row_is_warned_of(
    prepare: Prepare,
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = write_jsonl(tmp_path / "first.jsonl", [GOOD, OTHER])
    second = write_jsonl(tmp_path / "second.jsonl", [{}])

    with caplog.at_level(logging.WARNING, logger="llm_engineering"):
        prepare(make_config({**sources(first, second), "data.on_bad_rows": "skip"}))

    assert f"data.sources.1 ({second}): of 1 rows none is used" in [
        record.message for record in caplog.records
    ]


@pytest.mark.parametrize("rows", [[], [{}, {"instruction": "a"}]])
def test_nothing_left_to_train_on(
    rows: list[Any],
    prepare: Prepare,
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    tmp_path: Path,
) -> None:
    first = write_jsonl(tmp_path / "first.jsonl", [*rows, ""])
    second = write_jsonl(tmp_path / "second.jsonl", [*rows, ""])

    assert refusal(
        prepare, make_config({**sources(first, second), "data.on_bad_rows": "skip"})
    ) == (f"data.sources: no usable row is left to train on in {first}, {second}")


def test_nothing_left_to_evaluate_on(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "held_out.jsonl", [{}])
    config = make_config({"data.held_out.source": str(path), "data.on_bad_rows": "skip"})

    assert refusal(prepare, config) == (
        f"data.held_out: no usable row is left in {path}; "
        "the loss before and after could not be compared"
    )
