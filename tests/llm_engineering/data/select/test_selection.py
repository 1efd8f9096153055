"""Rows that repeat or leak are told, dropped or refused; weights draw a share of each source."""

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
SHOUTED = {"instruction": "WHAT  is 1 + 1?", "response": "two."}


def refusal(prepare: Prepare, config: FinetuningConfig) -> str:
    with pytest.raises(DataError) as caught:
        prepare(config)
    return str(caught.value)


def sources(*paths: Path, **settings: Any) -> dict[str, Any]:
    return {"data.sources": [{"source": str(path), **settings} for path in paths]}


def line_numbers(prepared: PreparedDataset, split: str) -> list[int]:
    return [int(origin.rpartition(":")[2]) for origin in prepared.split(split)["origin"]]


def test_repeated_rows_are_counted_and_named_and_kept(
    prepare: Prepare,
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [GOOD, OTHER, SHOUTED, GOOD])

    with caplog.at_level(logging.WARNING, logger="llm_engineering"):
        prepared = prepare(make_config(sources(path)))

    assert prepared.summary.train.rows == 4
    assert prepared.summary.duplicates is not None
    assert prepared.summary.duplicates.first == [f"{path}:4 = {path}:1"]
    assert [record.message for record in caplog.records] == [
        "1 of 4 training rows repeat an earlier one: data.on_duplicates: drop leaves them out\n"
        f"{path}:4 = {path}:1"
    ]


def test_repeated_rows_are_dropped_or_refused_where_asked(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [GOOD, OTHER, GOOD])

    prepared = prepare(make_config({**sources(path), "data.on_duplicates": "drop"}))

    assert line_numbers(prepared, "train") == [1, 2]
    assert (prepared.summary.duplicates.count, prepared.summary.duplicates.dropped) == (1, True)
    assert [one.used for one in prepared.summary.sources] == [2, 12]
    assert refusal(prepare, make_config({**sources(path), "data.on_duplicates": "error"})) == (
        f"{path}:3 = {path}:1\n1 of 3 training rows repeat an earlier one. Remove them: "
        "data.on_duplicates: drop leaves them out"
    )


@pytest.mark.parametrize("what", ["warn", "drop", "error"])
def test_rows_that_are_held_out_too_are_named_on_both_sides(
    what: str, prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", [OTHER, GOOD])
    held_out = write_jsonl(tmp_path / "held_out.jsonl", [SHOUTED])
    config = make_config(
        {**sources(train), "data.held_out.source": str(held_out), "data.on_leaks": what}
    )
    pair = f"{train}:2 = {held_out}:1"

    if what == "error":
        assert refusal(prepare, config).startswith(f"{pair}\n1 of 2 training rows are held out too")
        return
    prepared = prepare(config)
    assert prepared.summary.leaks is not None
    assert prepared.summary.leaks.first == [pair]
    assert prepared.summary.figures["leaked_rows"] == 1
    assert line_numbers(prepared, "train") == ([1] if what == "drop" else [1, 2])


def test_near_rows_count_where_asked(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    long = "Tell me at some length what the quick brown fox did when it met the lazy dog at night"
    rows = [{**GOOD, "instruction": text} for text in (long, long.replace("brown", "green"), "Hm?")]
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    held_out = write_jsonl(
        tmp_path / "held_out.jsonl", [{**GOOD, "instruction": long.replace("night", "noon")}]
    )
    settings = {**sources(train), "data.held_out.source": str(held_out), "data.on_leaks": "drop"}

    assert prepare(make_config(settings)).summary.leaks.count == 0
    prepared = prepare(make_config({**settings, "data.near_duplicates": 0.7}))

    assert prepared.summary.duplicates is not None
    assert prepared.summary.duplicates.first == [f"{train}:2 ~ {train}:1"]
    assert prepared.summary.leaks is not None
    assert prepared.summary.leaks.first == [f"{train}:1 ~ {held_out}:1"]
    assert line_numbers(prepared, "train") == [2, 3]


def test_weights_draw_a_share_of_each_source_again_and_again(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    first = write_jsonl(tmp_path / "first.jsonl", [{**GOOD, "response": str(n)} for n in range(40)])
    second = write_jsonl(
        tmp_path / "second.jsonl", [{**OTHER, "response": str(n)} for n in range(10)]
    )
    config = {
        "data.sources": [
            {"source": str(first), "weight": 0.6},
            {"source": str(second), "weight": 0.4},
        ]
    }

    prepared, again = prepare(make_config(config)), prepare(make_config(config))
    other = prepare(make_config({**config, "run.seed": 1}))

    assert [(one.rows, one.used) for one in prepared.summary.sources][:2] == [(40, 15), (10, 10)]
    assert prepared.summary.digest == again.summary.digest != other.summary.digest
