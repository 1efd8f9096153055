"""Reading every source: in order, in one form a source, up to max_rows."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.dataset import PreparedDataset

MakeConfig = Callable[..., FinetuningConfig]
WriteJsonl = Callable[[Path, Sequence[Any]], Path]
Prepare = Callable[[FinetuningConfig], PreparedDataset]
Refusal = Callable[[FinetuningConfig], str]
Sources = Callable[..., dict[str, Any]]
LineNumbers = Callable[[PreparedDataset, str], list[int]]

MESSAGES = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}


def test_sources_are_read_in_their_order_and_mixed_kinds(
    prepare: Prepare,
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    tmp_path: Path,
    sources: Sources,
) -> None:
    first = tmp_path / "first.csv"
    first.write_text("instruction,output\na,b\nc,d\n")
    messages = [{"role": "user", "content": "e"}, {"role": "assistant", "content": "f"}]
    second = write_jsonl(tmp_path / "second.jsonl", [{"messages": messages}])

    prepared = prepare(make_config(sources(first, second)))

    assert prepared.split("train")["origin"][:] == [f"{first}:2", f"{first}:3", f"{second}:1"]


def test_max_rows_takes_the_first_of_each_source(
    prepare: Prepare, make_config: MakeConfig, sources: Sources, line_numbers: LineNumbers
) -> None:
    path = Path(make_config().data.sources[0].source)
    config = make_config({**sources(path, max_rows=5), "data.held_out.max_rows": 3})

    prepared = prepare(config)

    assert line_numbers(prepared, "train") == [1, 2, 3, 4, 5]
    assert len(line_numbers(prepared, "held_out")) == 3
    assert [source.rows for source in prepared.summary.sources] == [5, 12]


def test_rows_behind_max_rows_are_not_looked_at(
    prepare: Prepare,
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    tmp_path: Path,
    sources: Sources,
    good: dict[str, Any],
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [good, good, "{ broken"])

    assert prepare(make_config(sources(path, max_rows=2))).summary.train.rows == 2


def test_the_form_of_each_source_is_stated(
    prepare: Prepare,
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    tmp_path: Path,
    sources: Sources,
    good: dict[str, Any],
) -> None:
    rows: dict[str, Any] = {
        "alpaca": good,
        "prompt_completion": {"prompt": "a", "completion": "b"},
        "messages": MESSAGES,
        "sharegpt": {
            "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
        },
        "text": {"text": "Once upon a time"},
    }
    paths = [write_jsonl(tmp_path / f"{name}.jsonl", [row]) for name, row in rows.items()]

    prepared = prepare(make_config(sources(*paths)))

    assert [one.form for one in prepared.summary.sources] == [*rows, "alpaca"]
    assert [one.used for one in prepared.summary.sources] == [1, 1, 1, 1, 1, 12]


def test_a_row_of_another_form_than_its_source_is_a_bad_row(
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    tmp_path: Path,
    refusal: Refusal,
    sources: Sources,
    good: dict[str, Any],
    other: dict[str, Any],
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [good, MESSAGES, other])

    assert refusal(make_config(sources(path))).splitlines()[0] == (
        f"{path}:2: is of the form messages, and {path}:1 is alpaca; a source has one form: make "
        "two of it, or state its form"
    )


def test_a_stated_form_decides(
    prepare: Prepare,
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    tmp_path: Path,
    refusal: Refusal,
    sources: Sources,
    good: dict[str, Any],
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{**good, **MESSAGES}])

    assert "has columns of two forms" in refusal(make_config(sources(path)))
    prepared = prepare(make_config(sources(path, form="messages")))
    assert json.loads(prepared.split("train")["conversation"][0]) == MESSAGES


def test_what_nothing_reads_is_counted_for_its_source(
    prepare: Prepare,
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    tmp_path: Path,
    sources: Sources,
    good: dict[str, Any],
    other: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad = {"instruction": "a", "never": 1}
    first = write_jsonl(
        tmp_path / "first.jsonl",
        [{**good, "meta": 1}, {**other, "meta": None}, {**good, "meta": {"a": 1}, "b": 0}, bad],
    )
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "README.md").touch()
    named = [{**one, "name": "Ada"} for one in MESSAGES["messages"]]
    write_jsonl(tmp_path / "second" / "rows.jsonl", [{"messages": named}])

    with caplog.at_level(logging.INFO, logger="llm_engineering"):
        prepared = prepare(
            make_config({**sources(first, tmp_path / "second"), "data.on_bad_rows": "skip"})
        )

    assert [one.unread for one in prepared.summary.sources[:2]] == [
        {"column meta": 2, "column b": 1},
        {"file README.md": 1, "messages[].name": 1},
    ]
    assert f"data.sources.0 ({first}): not read: column meta (2), column b (1)" in [
        record.message for record in caplog.records
    ]


def test_the_column_that_groups_rows_is_read(
    prepare: Prepare,
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    tmp_path: Path,
    sources: Sources,
) -> None:
    rows = [
        {"instruction": f"{n}?", "response": "Yes.", "author": n % 8, "meta": 1} for n in range(32)
    ]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    held_out = {"data.held_out": {"fraction": 0.3, "group": "author"}}

    prepared = prepare(make_config({**sources(path), **held_out}))

    assert prepared.summary.sources[0].unread == {"column meta": 32}


def test_columns_are_mapped_for_each_source_and_for_held_out_rows(
    prepare: Prepare,
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    tmp_path: Path,
    refusal: Refusal,
    sources: Sources,
) -> None:
    first = write_jsonl(tmp_path / "first.jsonl", [{"question": "a?", "answer": "b"}])
    second = write_jsonl(tmp_path / "second.jsonl", [{"q": "c?", "a": "d"}])
    held_out = {"source": str(second), "columns": {"prompt": "q", "completion": "a"}}
    mapping = {"prompt": "question", "completion": "answer"}

    assert "try the source's columns: {prompt: question, completion: answer}" in refusal(
        make_config(sources(first))
    )
    prepared = prepare(make_config({**sources(first, columns=mapping), "data.held_out": held_out}))

    said = [
        json.loads(prepared.split(split)["conversation"][0])["messages"][0]["content"]
        for split in ("train", "held_out")
    ]
    assert said == ["a?", "c?"]
    assert [one.unread for one in prepared.summary.sources] == [{}, {}]


def test_the_form_of_held_out_rows_may_be_stated(
    prepare: Prepare,
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    tmp_path: Path,
    refusal: Refusal,
    good: dict[str, Any],
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{**good, **MESSAGES}])
    held_out = {"source": str(path)}

    assert "has columns of two forms" in refusal(make_config({"data.held_out": held_out}))
    prepared = prepare(make_config({"data.held_out": {**held_out, "form": "messages"}}))

    assert json.loads(prepared.split("held_out")["conversation"][0]) == MESSAGES
