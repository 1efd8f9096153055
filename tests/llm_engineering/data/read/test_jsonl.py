"""JSON lines: each row says its line, and a bad line leaves the others."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

Write = Callable[[Path, str | bytes], Path]
Read = Callable[[Path], list[tuple[str, Any]]]

FIRST = {"instruction": "What is 1 + 1?", "response": "Two.\nExactly."}
SECOND = {"instruction": "Größe, bitte", "response": 'He said "no", 日本'}
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def test_jsonl_rows_name_their_lines(
    read: Read, tmp_path: Path, write_jsonl: Callable[[Path, Sequence[Any]], Path]
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [FIRST, SECOND])

    assert read(path) == [(":1", FIRST), (":2", SECOND)]


def test_jsonl_blank_lines_are_passed_over_and_counted(
    write: Write, read: Read, tmp_path: Path
) -> None:
    text = f"\n{json.dumps(FIRST)}\n  \t\n\n{json.dumps(SECOND)}"

    assert read(write(tmp_path / "rows.jsonl", text)) == [(":2", FIRST), (":5", SECOND)]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_jsonl_with_a_byte_order_mark_and_either_line_end(
    write: Write, read: Read, end: str, tmp_path: Path
) -> None:
    text = end.join(map(json.dumps, [FIRST, SECOND])) + end

    rows = read(write(tmp_path / "rows.jsonl", BYTE_ORDER_MARK + text.encode()))

    assert rows == [(":1", FIRST), (":2", SECOND)]


def test_a_jsonl_file_in_utf_16_is_not_taken_for_rows(
    write: Write, read: Read, tmp_path: Path
) -> None:
    path = write(tmp_path / "rows.jsonl", json.dumps(FIRST).encode("utf-16"))

    assert read(path) == [(":1", "bad: is not UTF-8 (byte 0 of the line)")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"instruction": "a"', "is not JSON: Expecting ',' delimiter at column 20"),
        (b"instruction: a", "is not JSON: Expecting value at column 1"),
        (b'{"a": 1} {"b": 2}', "is not JSON: Extra data at column 10"),
        (b"{'a': 1}", "is not JSON: Expecting property name enclosed in double quotes at column 2"),
        (b'["a"]', "is list, expected an object with named columns"),
        (b'"text"', "is str, expected an object with named columns"),
        (b"3", "is int, expected an object with named columns"),
        (b"null", "is null, expected an object with named columns"),
        (b'{"a": "\xff"}', "is not UTF-8 (byte 7 of the line)"),
        (b"[" * 100_000, "is nested too deeply"),
        (
            b'{"a": ' + b"1" * 5000 + b"}",
            "is not JSON that can be read: Exceeds the limit (4300 digits) for integer string "
            "conversion: value has 5000 digits; use sys.set_int_max_str_digits() to increase the "
            "limit",
        ),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_bad_jsonl_line_leaves_the_others(
    write: Write, read: Read, line: bytes, reason: str, tmp_path: Path
) -> None:
    good = json.dumps(FIRST).encode()
    path = write(tmp_path / "rows.jsonl", good + b"\n" + line + b"\n" + good + b"\n")

    assert read(path) == [(":1", FIRST), (":2", f"bad: {reason}"), (":3", FIRST)]
