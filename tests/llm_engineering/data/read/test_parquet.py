"""Parquet: rows are numbered, and a file that is none is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Write = Callable[[Path, str | bytes], Path]
Read = Callable[[Path], list[tuple[str, Any]]]
Refusal = Callable[[Path], str]
WriteParquet = Callable[[Path, list[dict[str, Any]]], Path]

FIRST = {"instruction": "What is 1 + 1?", "response": "Two.\nExactly."}
SECOND = {"instruction": "Größe, bitte", "response": 'He said "no", 日本'}


def test_parquet_rows_are_numbered(read: Read, write_parquet: WriteParquet, tmp_path: Path) -> None:
    assert read(write_parquet(tmp_path / "rows.parquet", [FIRST, SECOND])) == [
        (":row 1", FIRST),
        (":row 2", SECOND),
    ]


def test_parquet_keeps_lists_of_messages_and_nulls(
    read: Read, write_parquet: WriteParquet, tmp_path: Path
) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    path = write_parquet(tmp_path / "rows.parquet", [{"messages": messages, "input": None}])

    assert read(path) == [(":row 1", {"messages": messages, "input": None})]


def test_the_nulls_that_a_table_fills_objects_with_are_not_the_rows(
    read: Read, write_parquet: WriteParquet, tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = [
        {"calls": [{"name": "f", "arguments": {"city": "Rome"}}], "note": None},
        {"calls": [{"name": "g", "arguments": {"unit": "C"}}], "note": "n"},
    ]
    path = write_parquet(tmp_path / "rows.parquet", rows)

    assert [values for _, values in read(path)] == rows


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            b"PAR1 and then nothing of the kind",
            "Parquet magic bytes not found in footer. Either the file is corrupted or this is not "
            "a parquet file.",
        ),
        (b"x", "Parquet file size is 1 bytes, smaller than the minimum file footer (8 bytes)"),
    ],
)
def test_a_file_that_is_no_parquet(
    write: Write, refusal: Refusal, content: bytes, reason: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "rows.parquet", content)

    assert refusal(path) == f"rows.parquet: is not a readable Parquet file: {reason}"


def test_a_parquet_file_that_is_cut_short(
    refusal: Refusal, write_parquet: WriteParquet, tmp_path: Path
) -> None:
    path = write_parquet(tmp_path / "rows.parquet", [FIRST] * 50)
    path.write_bytes(path.read_bytes()[:-20])

    assert refusal(path).startswith("rows.parquet: is not a readable Parquet file: ")
