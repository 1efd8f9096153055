"""Reading rows: every kind of file, where each row says it came from, and every kind of bad file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.data.read.files import WHAT_TO_GIVE
from llm_engineering.data.read.row import BadRow, Row
from llm_engineering.data.read.sources import is_file, read_rows
from llm_engineering.errors import DataError

FIRST = {"instruction": "What is 1 + 1?", "response": "Two.\nExactly."}
SECOND = {"instruction": "Größe, bitte", "response": 'He said "no", 日本'}
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path) -> list[tuple[str, Any]]:
    """What a file gives: the place within the file, and the values or the reason."""
    return [
        (
            row.origin.removeprefix(str(path)),
            row.values if isinstance(row, Row) else f"bad: {row.reason}",
        )
        for row in read_rows(str(path))
    ]


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(read_rows(str(path)))
    return str(caught.value).replace(f"{path.parent}/", "")


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


# --- JSON lines --------------------------------------------------------------------------------


def test_jsonl_rows_name_their_lines(
    tmp_path: Path, write_jsonl: Callable[[Path, Sequence[Any]], Path]
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [FIRST, SECOND])

    assert read(path) == [(":1", FIRST), (":2", SECOND)]


def test_jsonl_blank_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    text = f"\n{json.dumps(FIRST)}\n  \t\n\n{json.dumps(SECOND)}"

    assert read(write(tmp_path / "rows.jsonl", text)) == [(":2", FIRST), (":5", SECOND)]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_jsonl_with_a_byte_order_mark_and_either_line_end(end: str, tmp_path: Path) -> None:
    text = end.join(map(json.dumps, [FIRST, SECOND])) + end

    rows = read(write(tmp_path / "rows.jsonl", BYTE_ORDER_MARK + text.encode()))

    assert rows == [(":1", FIRST), (":2", SECOND)]


def test_a_jsonl_file_in_utf_16_is_not_taken_for_rows(tmp_path: Path) -> None:
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
def test_a_bad_jsonl_line_leaves_the_others(line: bytes, reason: str, tmp_path: Path) -> None:
    good = json.dumps(FIRST).encode()
    path = write(tmp_path / "rows.jsonl", good + b"\n" + line + b"\n" + good + b"\n")

    assert read(path) == [(":1", FIRST), (":2", f"bad: {reason}"), (":3", FIRST)]


# --- JSON --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [b"", BYTE_ORDER_MARK])
def test_json_rows_name_the_line_on_which_they_begin(mark: bytes, tmp_path: Path) -> None:
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


def test_an_indented_json_list(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.json", json.dumps([FIRST, SECOND], indent=4))

    assert read(path) == [(":2", FIRST), (":6", SECOND)]


@pytest.mark.parametrize("text", ["[]", " [ \n ] \n"])
def test_an_empty_json_list_has_no_rows(text: str, tmp_path: Path) -> None:
    assert read(write(tmp_path / "rows.json", text)) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"instruction": "a"}',
            "rows.json:1: expected a JSON list of objects; for one object a line use .jsonl",
        ),
        (
            '{"a": 1}\n{"a": 2}\n',
            "rows.json:1: expected a JSON list of objects; for one object a line use .jsonl",
        ),
        (
            " \n",
            "rows.json:1: expected a JSON list of objects; for one object a line use .jsonl",
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
    content: str | bytes, message: str, tmp_path: Path
) -> None:
    assert refusal(write(tmp_path / "rows.json", content)) == message


# --- CSV ---------------------------------------------------------------------------------------


def test_csv_rows_name_the_line_on_which_they_begin(tmp_path: Path) -> None:
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


def test_csv_with_a_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    text = "instruction,response\r\nGröße,日本\r\n".encode()

    assert read(write(tmp_path / "rows.csv", BYTE_ORDER_MARK + text)) == [
        (":2", {"instruction": "Größe", "response": "日本"})
    ]


def test_csv_blank_lines_before_the_header(tmp_path: Path) -> None:
    assert read(write(tmp_path / "rows.csv", "\n\na,b\n1,2\n")) == [(":4", {"a": "1", "b": "2"})]


def test_a_csv_field_may_be_longer_than_the_modules_own_limit(tmp_path: Path) -> None:
    long = "x" * 200_000  # csv refuses more than 131072 unless told otherwise

    assert read(write(tmp_path / "rows.csv", f"a,b\n1,{long}\n")) == [(":2", {"a": "1", "b": long})]


def test_csv_rows_that_do_not_fit_the_header(tmp_path: Path) -> None:
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
    content: str | bytes, message: str, tmp_path: Path
) -> None:
    assert refusal(write(tmp_path / "rows.csv", content)) == message


# --- Parquet -----------------------------------------------------------------------------------


def test_parquet_rows_are_numbered(tmp_path: Path) -> None:
    assert read(write_parquet(tmp_path / "rows.parquet", [FIRST, SECOND])) == [
        (":row 1", FIRST),
        (":row 2", SECOND),
    ]


def test_parquet_keeps_lists_of_messages_and_nulls(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    path = write_parquet(tmp_path / "rows.parquet", [{"messages": messages, "input": None}])

    assert read(path) == [(":row 1", {"messages": messages, "input": None})]


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
def test_a_file_that_is_no_parquet(content: bytes, reason: str, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", content)

    assert refusal(path) == f"rows.parquet: is not a readable Parquet file: {reason}"


def test_a_parquet_file_that_is_cut_short(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "rows.parquet", [FIRST] * 50)
    path.write_bytes(path.read_bytes()[:-20])

    assert refusal(path).startswith("rows.parquet: is not a readable Parquet file: ")


# --- sources that are no file to read ----------------------------------------------------------


def test_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"

    assert refusal(path) == f"data source none.jsonl: no such file; {WHAT_TO_GIVE}"


def test_a_folder_without_data(tmp_path: Path) -> None:
    folder = tmp_path / "rows.jsonl"
    folder.mkdir()

    (folder / "README.md").write_text("no data")

    assert refusal(folder) == (
        "data source rows.jsonl: the folder holds no .jsonl, .json, .csv, .parquet file "
        "(.gz and .zst too)"
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_an_empty_file(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"rows{suffix}", "")

    assert refusal(path) == f"data source rows{suffix}: the file is empty"


@pytest.mark.parametrize(
    ("name", "kind"), [("rows.txt", "'.txt'"), ("rows", "'(no suffix)'"), ("r.JSONL", "'.JSONL'")]
)
def test_a_file_of_an_unknown_kind(name: str, kind: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, "x")

    assert refusal(path) == (
        f"data source {name}: unknown kind {kind}; known: .jsonl, .json, .csv, .parquet, and "
        ".gz and .zst of the first three"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", json.dumps(FIRST))
    path.chmod(0)

    assert refusal(path) == "data source rows.jsonl: cannot be read (Permission denied)"


def test_a_hub_data_set_that_cannot_be_had() -> None:
    with pytest.raises(DataError) as caught:
        list(read_rows("nobody/nothing-here", split="validation"))

    message = str(caught.value)
    assert message.startswith(
        "data source nobody/nothing-here: cannot be loaded from the Hub (ConnectionError: "
    )
    assert message.endswith(
        "; check the id, the split 'validation', the network and, for a gated data set, "
        "your Hub login"
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("owner/name", False),
        ("owner/name-1.0_b", False),
        ("owner/rows.jsonl", True),
        ("data/stdlib_qa/train.jsonl", True),
        ("/absolute/name", True),
        ("name", True),
        ("a/b/c", True),
    ],
)
def test_what_counts_as_a_file(source: str, expected: bool) -> None:
    assert is_file(source) is expected


def test_a_folder_that_is_there_is_not_looked_for_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    assert is_file("owner/name")


def test_rows_are_read_one_at_a_time(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", json.dumps(FIRST) + "\n{\n")
    rows = read_rows(str(path))

    assert next(rows) == Row(f"{path}:1", FIRST)
    assert next(rows) == BadRow(
        f"{path}:2",
        "is not JSON: Expecting property name enclosed in double quotes at column 2",
    )
