"""A JSON list: each row says the line on which it begins; a bad file is refused as a whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Write = Callable[[Path, str | bytes], Path]
Read = Callable[[Path], list[tuple[str, Any]]]
Refusal = Callable[[Path], str]

FIRST = {"instruction": "What is 1 + 1?", "response": "Two.\nExactly."}
SECOND = {"instruction": "Größe, bitte", "response": 'He said "no", 日本'}
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize("mark", [b"", BYTE_ORDER_MARK])
def test_json_rows_name_the_line_on_which_they_begin(
    write: Write, read: Read, mark: bytes, tmp_path: Path
) -> None:
    text = (
        "\n[\n"
        + json.dumps(FIRST)
        + ",\n\n"
        + json.dumps(SECOND, indent=2, ensure_ascii=False)
        + ",  "
        + json.dumps(FIRST)
        + ",\n3]\n"
    )

    rows = read(write(tmp_path / "rows.json", mark + text.encode()))

    assert rows == [
        (":3", FIRST),
        (":5", SECOND),
        (":8", FIRST),
        (":9", "bad: is int, expected an object with named columns"),
    ]


def test_an_indented_json_list(write: Write, read: Read, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.json", json.dumps([FIRST, SECOND], indent=4))

    assert read(path) == [(":2", FIRST), (":6", SECOND)]


@pytest.mark.parametrize("text", ["[]", " [ \n ] \n"])
def test_an_empty_json_list_has_no_rows(
    write: Write, read: Read, text: str, tmp_path: Path
) -> None:
    assert read(write(tmp_path / "rows.json", text)) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            " \n",
            "rows.json:1: expected a JSON list of objects, objects one after the other, or an "
            "object that holds a list of them",
        ),
        ('{"a": 1}\n{"a": }\n', "rows.json:2: is not JSON: Expecting value"),
        ('{"a": 1},\n{"a": 2}\n', "rows.json:1: is not JSON: Expecting value"),
        (
            '[{"a": 1},\n{"a": 1, "b": 2, "a": 3}]',
            "rows.json:2: is not JSON that can be read: an object names 'a' twice",
        ),
        ('[\n{"a": 1},\n{"a": }\n]', "rows.json:3: is not JSON: Expecting value"),
        (
            '[\n{"a": 1,\n "b": 2,\n c: 3}\n]',
            "rows.json:4: is not JSON: Expecting property name enclosed in double quotes",
        ),
        ('[\n{"a": 1},\n]', "rows.json:3: is not JSON: Expecting value"),
        ('[{"a": 1},\n{"a": 2}\n', "rows.json:3: is not JSON: expected ',' or ']' after a row"),
        (
            '[{"a": 1}\n{"a": 2}]',
            "rows.json:2: is not JSON: expected ',' or ']' after a row",
        ),
        (
            '[{"a": 1}]\n\n[{"a": 2}]\n',
            "rows.json:3: is not JSON: more follows the end of the list",
        ),
        ("[\n" + "[" * 100_000, "rows.json:2: is not JSON: nested too deeply"),
        (
            "[\n" + "1" * 5000 + "]",
            "rows.json:2: is not JSON that can be read: Exceeds the limit (4300 digits) for "
            "integer string conversion: value has 5000 digits; use sys.set_int_max_str_digits() "
            "to increase the limit",
        ),
        (b'[\n{"a": "\xff"}]', "rows.json:2: is not UTF-8; save it as UTF-8"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_bad_json_file_is_refused_as_a_whole(
    write: Write, refusal: Refusal, content: str | bytes, message: str, tmp_path: Path
) -> None:
    assert refusal(write(tmp_path / "rows.json", content)) == message


@pytest.mark.parametrize("between", ["\n", "\n\n", " ", ""])
def test_objects_one_after_the_other_are_rows_with_their_lines(
    write: Write, read: Read, between: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "rows.json", between.join(['{"a": 1}', '{"a":\n 2}', '{"b": 3}']))
    step = between.count("\n")

    assert read(path) == [
        (":1", {"a": 1}),
        (f":{1 + step}", {"a": 2}),
        (f":{2 + 2 * step}", {"b": 3}),
    ]
