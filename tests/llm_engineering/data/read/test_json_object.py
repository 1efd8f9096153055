"""A JSON file that is one object: where its rows are, and what beside them is told."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.data.read.row import Row
from llm_engineering.data.read.sources import Asked, read_rows
from llm_engineering.errors import DataError

Read = Callable[[Path], list[tuple[str, Any]]]

A, B = {"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}
CHAT = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def write(folder: Path, value: object) -> Path:
    path = folder / "rows.json"
    path.write_text(json.dumps(value, indent=1))
    return path


def test_the_one_list_of_objects_is_the_rows_and_the_rest_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, {"version": "1.0", "data": [A, B], "licence": "", "tags": ["x"]})
    unread: Counter[str] = Counter()

    rows = list(read_rows(str(path), unread=unread))

    assert rows == [Row(f"{path}:row 1", A), Row(f"{path}:row 2", B)]
    assert unread == {"key version": 1, "key tags": 1}


def test_columns_are_rows(read: Read, tmp_path: Path) -> None:
    assert read(write(tmp_path, {"prompt": ["a", "c"], "completion": ["b", "d"]})) == [
        (":row 1", A),
        (":row 2", B),
    ]


def test_columns_of_messages_are_rows(read: Read, tmp_path: Path) -> None:
    assert read(write(tmp_path, {"messages": [CHAT, CHAT]})) == [
        (":row 1", {"messages": CHAT}),
        (":row 2", {"messages": CHAT}),
    ]


def test_columns_as_pandas_writes_them_are_rows(read: Read, tmp_path: Path) -> None:
    import pandas

    path = tmp_path / "rows.json"
    pandas.DataFrame([A, B]).to_json(path)

    assert read(path) == [(":row 1", A), (":row 2", B)]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": CHAT, "tools": [{"name": "f"}]},
        {"conversations": [{"from": "human", "value": "a"}], "system": "s"},
        {"prompt": CHAT[:1], "completion": CHAT[1:]},
        {"instruction": "a", "output": "b", "history": [["c", "d"]]},
        A,
    ],
    ids=["messages", "conversations", "prompt", "history", "flat"],
)
def test_an_object_that_is_a_row_is_that_row(read: Read, row: Any, tmp_path: Path) -> None:
    assert read(write(tmp_path, row)) == [(":1", row)]


def test_of_several_lists_the_splits_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, {"train": [A], "test": [B]})

    assert [row.values for row in read_rows(str(path)) if isinstance(row, Row)] == [A]
    assert [
        row.values
        for row in read_rows(str(path), Asked(default_split="test"))
        if isinstance(row, Row)
    ] == [B]
    assert [
        row.values for row in read_rows(str(path), Asked(split="test")) if isinstance(row, Row)
    ] == [B]


@pytest.mark.parametrize(
    ("value", "split", "message"),
    [
        (
            {"dev": [A], "test": [B]},
            None,
            "the file has lists of rows under dev, test, and none is 'train'; say which with split",
        ),
        (
            {"data": [A]},
            "test",
            "the file has lists of rows under data, and none is 'test'; say which with split",
        ),
        (A, "test", "split 'test', and the file has no splits; drop it"),
        ([A], "test", "split 'test', and the file has no splits; drop it"),
    ],
)
def test_a_split_that_is_not_there_is_refused(
    value: object, split: str | None, message: str, tmp_path: Path
) -> None:
    path = write(tmp_path, value)

    with pytest.raises(DataError) as caught:
        list(read_rows(str(path), Asked(split=split)))

    assert str(caught.value) == f"data source {path}: {message}"


def test_columns_of_different_lengths_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": ["a"], "completion": ["b", "c"]})

    with pytest.raises(DataError, match="columns of different lengths: prompt 1, completion 2"):
        list(read_rows(str(path)))
