"""CSV: each row says the line on which it begins; what does not fit the header is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Write = Callable[[Path, str | bytes], Path]
Read = Callable[[Path], list[tuple[str, Any]]]
Refusal = Callable[[Path], str]

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def test_csv_rows_name_the_line_on_which_they_begin(
    write: Write, read: Read, tmp_path: Path
) -> None:
    text = (
        "instruction,response\n"
        'first,"one\ntwo\nthree"\n'
        "second,plain\n"
        "\n"
        'third,"with ""quotes"", and a comma"\n'
        '"four\nth",last\n'
    )

    assert read(write(tmp_path / "rows.csv", text)) == [
        (":2", {"instruction": "first", "response": "one\ntwo\nthree"}),
        (":5", {"instruction": "second", "response": "plain"}),
        (":7", {"instruction": "third", "response": 'with "quotes", and a comma'}),
        (":8", {"instruction": "four\nth", "response": "last"}),
    ]


def test_csv_with_a_byte_order_mark_and_windows_line_ends(
    write: Write, read: Read, tmp_path: Path
) -> None:
    text = "instruction,response\r\nGröße,日本\r\n".encode()

    assert read(write(tmp_path / "rows.csv", BYTE_ORDER_MARK + text)) == [
        (":2", {"instruction": "Größe", "response": "日本"})
    ]


def test_csv_blank_lines_before_the_header(write: Write, read: Read, tmp_path: Path) -> None:
    assert read(write(tmp_path / "rows.csv", "\n\na,b\n1,2\n")) == [(":4", {"a": "1", "b": "2"})]


def test_a_csv_field_may_be_longer_than_the_modules_own_limit(
    write: Write, read: Read, tmp_path: Path
) -> None:
    long = "x" * 200_000  # csv refuses more than 131072 unless told otherwise

    assert read(write(tmp_path / "rows.csv", f"a,b\n1,{long}\n")) == [(":2", {"a": "1", "b": long})]


def test_csv_rows_that_do_not_fit_the_header(write: Write, read: Read, tmp_path: Path) -> None:
    text = 'a,b,c\n1,2,3\n1,2,3,4\n"1\n"\n1,2,3\n'

    assert read(write(tmp_path / "rows.csv", text)) == [
        (":2", {"a": "1", "b": "2", "c": "3"}),
        (":3", "bad: has more than the header's 3 columns"),
        (":4", "bad: has no value for column b, c"),
        (":6", {"a": "1", "b": "2", "c": "3"}),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('a,b\n1,2\n1,"2\n', "rows.csv:3: is not CSV: unexpected end of data"),
        ('a,b\n1,2\n"1"x,2\n', "rows.csv:3: is not CSV: ',' expected after '\"'"),
        ("b,a,b\n1,2,3\n", "rows.csv:1: names column b twice"),
        (b"a,b\n1,2\n1,\xff\n", "rows.csv:3: is not UTF-8; save it as UTF-8"),
    ],
)
def test_a_bad_csv_file_is_refused_as_a_whole(
    write: Write, refusal: Refusal, content: str | bytes, message: str, tmp_path: Path
) -> None:
    assert refusal(write(tmp_path / "rows.csv", content)) == message
