"""Rows that repeat or leak are told, dropped or refused; weights draw a share of each source."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.data.select.selection import Selection, used_sources
from llm_engineering.data.summary import Repeats, SourceSummary

MakeConfig = Callable[..., FinetuningConfig]
WriteJsonl = Callable[[Path, Sequence[Any]], Path]
Prepare = Callable[[FinetuningConfig], PreparedDataset]
Refusal = Callable[[FinetuningConfig], str]
Sources = Callable[..., dict[str, Any]]
LineNumbers = Callable[[PreparedDataset, str], list[int]]

SHOUTED = {"instruction": "WHAT  is 1 + 1?", "response": "two."}


def test_repeated_rows_are_counted_and_named_and_kept(
    prepare: Prepare,
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    sources: Sources,
    good: dict[str, Any],
    other: dict[str, Any],
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [good, other, SHOUTED, good])

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
    prepare: Prepare,
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    tmp_path: Path,
    refusal: Refusal,
    sources: Sources,
    line_numbers: LineNumbers,
    good: dict[str, Any],
    other: dict[str, Any],
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [good, other, good])

    prepared = prepare(make_config({**sources(path), "data.on_duplicates": "drop"}))

    assert line_numbers(prepared, "train") == [1, 2]
    assert (prepared.summary.duplicates.count, prepared.summary.duplicates.dropped) == (1, True)
    assert [one.used for one in prepared.summary.sources] == [2, 12]
    assert refusal(make_config({**sources(path), "data.on_duplicates": "error"})) == (
        f"{path}:3 = {path}:1\n1 of 3 training rows repeat an earlier one. Remove them: "
        "data.on_duplicates: drop leaves them out"
    )


@pytest.mark.parametrize("what", ["warn", "drop", "error"])
def test_rows_that_are_held_out_too_are_named_on_both_sides(
    what: str,
    prepare: Prepare,
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    tmp_path: Path,
    refusal: Refusal,
    sources: Sources,
    line_numbers: LineNumbers,
    good: dict[str, Any],
    other: dict[str, Any],
) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", [other, good])
    held_out = write_jsonl(tmp_path / "held_out.jsonl", [SHOUTED])
    config = make_config(
        {**sources(train), "data.held_out.source": str(held_out), "data.on_leaks": what}
    )
    pair = f"{train}:2 = {held_out}:1"

    if what == "error":
        said = refusal(config)
        assert said.startswith(
            f"{pair}\n1 of 2 training rows begin with a prompt that is held out too"
        )
        assert "data.on_leaks: drop" in said
        return
    prepared = prepare(config)
    assert prepared.summary.leaks is not None
    assert prepared.summary.leaks.first == [pair]
    assert prepared.summary.figures["leaked_rows"] == 1
    assert line_numbers(prepared, "train") == ([1] if what == "drop" else [1, 2])


def test_near_rows_count_where_asked(
    prepare: Prepare,
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    tmp_path: Path,
    sources: Sources,
    line_numbers: LineNumbers,
    good: dict[str, Any],
) -> None:
    long = "Tell me at some length what the quick brown fox did when it met the lazy dog at night"
    rows = [{**good, "instruction": text} for text in (long, long.replace("brown", "green"), "Hm?")]
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    held_out = write_jsonl(
        tmp_path / "held_out.jsonl", [{**good, "instruction": long.replace("night", "noon")}]
    )
    settings = {**sources(train), "data.held_out.source": str(held_out), "data.on_leaks": "drop"}

    assert prepare(make_config(settings)).summary.leaks.count == 0
    prepared = prepare(make_config({**settings, "data.near_duplicates": 0.7}))

    assert prepared.summary.duplicates is not None
    assert prepared.summary.duplicates.first == [f"{train}:2 ~ {train}:1"]
    assert prepared.summary.leaks is not None
    assert prepared.summary.leaks.first == [
        f"{train}:1 ~ {held_out}:1",
        f"{train}:2 ~ {held_out}:1",
    ]
    assert line_numbers(prepared, "train") == [3]


def test_weights_draw_a_share_of_each_source_again_and_again(
    prepare: Prepare,
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    tmp_path: Path,
    sources: Sources,
    good: dict[str, Any],
    other: dict[str, Any],
) -> None:
    first = write_jsonl(tmp_path / "first.jsonl", [{**good, "response": str(n)} for n in range(40)])
    second = write_jsonl(
        tmp_path / "second.jsonl", [{**other, "response": str(n)} for n in range(10)]
    )
    config = {
        "data.sources": [
            {"source": str(first), "weight": 0.6},
            {"source": str(second), "weight": 0.4},
        ]
    }

    prepared, again = prepare(make_config(config)), prepare(make_config(config))
    seeded = prepare(make_config({**config, "data.seed": 1}))
    rerun = prepare(make_config({**config, "run.seed": 1}))

    assert [(one.rows, one.used) for one in prepared.summary.sources][:2] == [(40, 15), (10, 10)]
    assert prepared.summary.digest == again.summary.digest == rerun.summary.digest
    assert prepared.summary.digest != seeded.summary.digest


def test_a_source_is_used_by_its_rows_and_not_by_what_became_of_them() -> None:
    """A row that gives two items is one; of three sources the last gave none that is used."""
    sources = [SourceSummary(source=name, rows=9) for name in ("a", "b", "c")]
    index: Any = SimpleNamespace(
        sources=sources,
        source=numpy.array([0, 0, 0, 1, 1, 2], dtype="uint16"),
        begins=numpy.array([1, 1, 0, 1, 1, 1], dtype="uint8"),
    )
    rows = {"train": numpy.array([0, 1, 2, 3]), "held_out": numpy.array([4])}
    selection = Selection(rows, None, Repeats(), Repeats(), 0)

    used = used_sources(index, selection, lost=[3])

    assert [one.used for one in used] == [2, 1, 0]
    assert [(one.source, one.rows) for one in used] == [("a", 9), ("b", 9), ("c", 9)]
