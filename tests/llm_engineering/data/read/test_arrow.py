"""Arrow: both kinds of file give the rows of the table, and another file is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest

Write = Callable[[Path, str | bytes], Path]
Read = Callable[[Path], list[tuple[str, Any]]]
Refusal = Callable[[Path], str]

ROWS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "a"}], "tools": None},
    {"messages": [{"role": "tool", "content": "b", "name": "f"}], "tools": "[]"},
]


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_a_stream_and_a_file_give_their_rows(kind: str, read: Read, tmp_path: Path) -> None:
    table = pyarrow.Table.from_pylist(ROWS * 300)
    path = tmp_path / "rows.arrow"
    begin = pyarrow.ipc.new_stream if kind == "stream" else pyarrow.ipc.new_file
    with path.open("wb") as file, begin(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=400)

    assert read(path) == [(f":row {number}", row) for number, row in enumerate(ROWS * 300, 1)]


@pytest.mark.parametrize("content", [b"nothing of the kind, at all", b"ARROW1 nothing of the kind"])
def test_a_file_that_is_no_arrow(
    content: bytes, write: Write, refusal: Refusal, tmp_path: Path
) -> None:
    assert refusal(write(tmp_path / "rows.arrow", content)).startswith(
        "rows.arrow: is not a readable Arrow file: "
    )
