"""Plain text: a row a line, and blank lines are counted."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

from llm_engineering.data.read.row import BadRow, Row
from llm_engineering.data.read.sources import read_rows


def test_each_line_is_a_row_and_blank_ones_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_bytes("\ufeffOnce upon\r\n\n  a Größe \n \t\n".encode() + b"\xff\n" + b"the end")
    unread: Counter[str] = Counter()

    assert list(read_rows(str(path), unread=unread)) == [
        Row(f"{path}:1", {"text": "Once upon"}),
        Row(f"{path}:3", {"text": "  a Größe "}),
        BadRow(f"{path}:5", "is not UTF-8 (byte 0 of the line)"),
        Row(f"{path}:6", {"text": "the end"}),
    ]
    assert unread == {"blank line": 2}


def test_a_compressed_text_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt.gz"
    path.write_bytes(gzip.compress(b"Once\n"))

    assert list(read_rows(str(path))) == [Row(f"{path}:1", {"text": "Once"})]
